"""Docker references: the normalisation that every docker user knows, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri_runtime.images.digest import Digest
from cri_runtime.images.errors import InvalidDigest, InvalidReference
from cri_runtime.images.reference import normalize, parse

HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("kubia", "docker.io/library/kubia:latest", "kubia:latest"),
        ("luksa/kubia", "docker.io/luksa/kubia:latest", "luksa/kubia:latest"),
        ("docker.io/kubia:v1", "docker.io/library/kubia:v1", "kubia:v1"),
        ("index.docker.io/library/kubia", "docker.io/library/kubia:latest", "kubia:latest"),
        ("localhost:5000/kubia", "localhost:5000/kubia:latest", "localhost:5000/kubia:latest"),
        ("localhost/kubia", "localhost/kubia:latest", "localhost/kubia:latest"),
        ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
        ("[::1]:5000/a/b:c", "[::1]:5000/a/b:c", "[::1]:5000/a/b:c"),
        (f"kubia@sha256:{HEX}", f"docker.io/library/kubia@sha256:{HEX}", f"kubia@sha256:{HEX}"),
        (f"a.b/c:t@sha256:{HEX}", f"a.b/c:t@sha256:{HEX}", f"a.b/c:t@sha256:{HEX}"),
        ("UPPER/kubia", "UPPER/kubia:latest", "UPPER/kubia:latest"),
        ("a__b/c-d.e", "docker.io/a__b/c-d.e:latest", "a__b/c-d.e:latest"),
    ],
)
def test_names_become_full(text: str, full: str, familiar: str) -> None:
    assert str(normalize(text)) == full
    assert normalize(text).familiar == familiar


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("Kubia", "lower case"),
        ("kubia:", "tag"),
        ("kubia:a b", "tag"),
        ("kubia:" + "x" * 129, "tag"),
        (":v1", "empty"),
        ("a//b", "repository"),
        ("-a", "repository"),
        ("a/b/", "repository"),
        ("kubia@sha256:abc", "digest"),
        ("host:port/x", "registry host"),
        (HEX, "image id"),
        ("a/" * 130 + "a", "255"),
    ],
)
def test_bad_names_are_refused_with_the_part_that_is_wrong(text: str, says: str) -> None:
    with pytest.raises(InvalidReference, match=says):
        normalize(text)


@given(st.text(alphabet="aZ09./:@_-[]", max_size=40))
def test_parsing_what_was_printed_gives_the_same(text: str) -> None:
    try:
        once = normalize(text)
    except InvalidReference:
        return
    assert normalize(str(once)) == once
    assert normalize(once.familiar) == once


@given(st.text(max_size=30))
def test_no_text_makes_the_parser_fail_otherwise(text: str) -> None:
    try:
        parse(text)
    except InvalidReference as err:
        assert str(err)


@pytest.mark.parametrize("text", ["", "sha256:", "sha256:" + "A" * 64, "md5:" + "a" * 32, "sha256:" + "a" * 63, HEX])
def test_a_digest_cannot_be_made_from_a_bad_string(text: str) -> None:
    with pytest.raises(InvalidDigest):
        Digest(text)
