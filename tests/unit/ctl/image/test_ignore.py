"""``.dockerignore``: the reference's own examples, and that pruning never changes what is sent."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctl.image.ignore import Ignore


@pytest.mark.parametrize(
    ("lines", "path", "out"),
    [
        (["# comment"], "x", False),
        (["*/temp*"], "somedir/temporary.txt", True),
        (["*/temp*"], "somedir/temp", True),
        (["*/temp*"], "temp", False),
        (["*/*/temp*"], "somedir/subdir/temporary.txt", True),
        (["temp?"], "tempa", True),
        (["temp?"], "temp", False),
        (["*.md", "!README.md"], "README.md", False),
        (["*.md", "!README.md"], "other.md", True),
        (["*.md", "!README*.md", "README-secret.md"], "README-secret.md", True),
        (["*.md", "README-secret.md", "!README*.md"], "README-secret.md", False),
        (["**/*.go"], "a/b/c.go", True),
        (["**/*.go"], "c.go", True),
        (["node_modules"], "node_modules/a/b", True),
        (["node_modules"], "a/node_modules", False),
        (["/a"], "a", True),
        (["a/"], "a/b", True),
        (["./a/../b"], "b", True),
        (["a/**"], "a/b/c", True),
        (["a**b"], "axyb", True),
        (["[a-c]x"], "bx", True),
        (["[^a]x"], "ax", False),
        (["\\*"], "*", True),
        (["\\*"], "x", False),
        (["  spaces  "], "spaces", True),
        (["*", "!a/b"], "a/b/c", False),
        (["*", "!a/b"], "a/c", True),
        ([""], "x", False),
        (["."], "x", False),
    ],
)
def test_patterns(lines: list[str], path: str, out: bool) -> None:
    assert Ignore(lines).excludes(path) is out


names = st.sampled_from(["a", "b", "ab"])
patterns = st.lists(
    st.tuples(
        st.sampled_from(["", "!"]), st.lists(st.sampled_from(["a", "b", "*", "**", "a*"]), min_size=1, max_size=3)
    ),
    max_size=4,
)


@given(patterns, st.lists(names, min_size=2, max_size=4))
def test_what_is_pruned_has_nothing_to_send(rules: list[tuple[str, list[str]]], path: list[str]) -> None:
    ignore = Ignore([mark + "/".join(parts) for mark, parts in rules])
    for depth in range(1, len(path)):
        if ignore.prunes("/".join(path[:depth])):
            assert ignore.excludes("/".join(path))


def test_a_context_is_the_same_whoever_owns_it(tmp_path: Path) -> None:
    from ctl.image.context import tar_directory

    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_text("x" * 1000)
    (tmp_path / "l").symlink_to("d/f")
    first = b"".join(tar_directory(tmp_path, Ignore()))
    assert first == b"".join(tar_directory(tmp_path, Ignore()))
    assert len(first) % 512 == 0
