"""Variable replacement: the Dockerfile reference's own examples and the awkward cases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri_runtime.build.matching import excluded
from cri_runtime.build.words import WordError, expand, expand_only, split_words

VARS = {"foo": "bar", "empty": "", "path": "/a/b/c.tar.gz", "s": "foofoo"}


@pytest.mark.parametrize(
    ("word", "result"),
    [
        ("$foo", "bar"),
        ("${foo}", "bar"),
        ("x${foo}y", "xbary"),
        ("$foobar", ""),
        ("\\$foo", "$foo"),
        ("\\${foo}", "${foo}"),
        ("'$foo'", "$foo"),
        ('"$foo"', "bar"),
        ('"\\$foo"', "$foo"),
        ('"a\\b"', "a\\b"),
        ("a\\ b", "a b"),
        ("${foo:-x}", "bar"),
        ("${empty:-x}", "x"),
        ("${empty-x}", ""),
        ("${unset-x}", "x"),
        ("${unset:-${foo}}", "bar"),
        ('${unset:-"a b"}', "a b"),
        ("${foo:+x}", "x"),
        ("${empty:+x}", ""),
        ("${empty+x}", "x"),
        ("${unset+x}", ""),
        ("${foo:?wrong}", "bar"),
        ("${path##*/}", "c.tar.gz"),
        ("${path#*/}", "a/b/c.tar.gz"),
        ("${path%.*}", "/a/b/c.tar"),
        ("${path%%.*}", "/a/b/c"),
        ("${s/foo/x}", "xfoo"),
        ("${s//foo/x}", "xx"),
        ("${s/f??/$foo}", "barfoo"),
        ("$", "$"),
        ("a$", "a$"),
        ("$1", ""),
        ("a'b'\"c\"d", "abcd"),
    ],
)
def test_expansion(word: str, result: str) -> None:
    assert expand(word, VARS) == result


@pytest.mark.parametrize("word", ["${foo", "${", "${foo!x}", "'a", '"a', "${unset:?it is missing}", "${unset?}"])
def test_broken_words_are_refused(word: str) -> None:
    with pytest.raises(WordError):
        expand(word, VARS)


def test_the_message_of_a_required_variable_is_told() -> None:
    with pytest.raises(WordError, match="unset: it is missing"):
        expand("${unset:?it is missing}", VARS)


def test_documents_keep_their_quotes() -> None:
    assert expand_only("\"$foo\" '$foo' \\$foo", VARS) == "\"bar\" 'bar' $foo"


def test_the_backtick_escapes_when_asked() -> None:
    assert expand("c:\\x`$foo", VARS, "`") == "c:\\x$foo"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a  b\tc", ["a", "b", "c"]),
        ("a='b c' d", ["a='b c'", "d"]),
        ("a\\ b c", ["a\\ b", "c"]),
        ('"a\\"b" c', ['"a\\"b"', "c"]),
        ("", []),
    ],
)
def test_splitting(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@given(st.text(alphabet="ab$"))
def test_text_without_specials_stays(text: str) -> None:
    plain = text.replace("$", "")
    assert expand(plain, {}) == plain


@given(st.text(alphabet="ab{}$'\"\\:-+?#%/*", max_size=20))
def test_expansion_always_ends(text: str) -> None:
    try:
        expand(text, {"a": "b"})
    except WordError:
        pass


@pytest.mark.parametrize(
    ("path", "patterns", "out"),
    [
        ("a/b.md", ["*.md"], False),
        ("b.md", ["*.md"], True),
        ("a/b.md", ["**/*.md"], True),
        ("b.md", ["**/*.md"], True),
        ("a/b/c", ["a"], True),
        ("a/b/c", ["a", "!a/b"], False),
        ("keep", ["*", "!keep"], False),
        ("x", ["?"], True),
        ("xy", ["[x-z][!a]"], True),
    ],
)
def test_exclusion(path: str, patterns: list[str], out: bool) -> None:
    assert excluded(tuple(path.split("/")), patterns) is out
