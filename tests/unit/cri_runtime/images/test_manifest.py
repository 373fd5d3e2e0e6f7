"""Manifests, indexes, configs."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri_runtime.images.digest import Digest
from cri_runtime.images.errors import InvalidManifest
from cri_runtime.images.manifest import (
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    HistoryEntry,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    chain_ids,
    parse_config,
    parse_document,
)

A, B, C = (Digest.of(x) for x in (b"a", b"b", b"c"))


def test_chain_ids_follow_the_image_specification() -> None:
    """config.md: ChainID(L0|…|Ln) = Digest(ChainID(L0|…|Ln-1) + " " + DiffID(Ln))."""
    chain = chain_ids([A, B, C])
    assert chain[0] == A
    assert chain[1] == Digest.of(f"{A} {B}".encode())
    assert chain[2] == Digest.of(f"{chain[1]} {C}".encode())
    assert chain_ids([]) == []


def test_a_manifest_survives_its_own_bytes() -> None:
    manifest = Manifest(OCI_MANIFEST, Descriptor(OCI_CONFIG, A, 3), (Descriptor(OCI_LAYER, B, 4),))
    assert parse_document(manifest.to_bytes()) == manifest


words = st.text(alphabet="abc=", max_size=5)


@given(
    st.builds(
        ImageConfig,
        user=words,
        env=st.lists(words).map(tuple),
        entrypoint=st.none() | st.lists(words).map(tuple),
        cmd=st.none() | st.lists(words).map(tuple),
        working_dir=words,
        labels=st.dictionaries(words, words),
        volumes=st.sets(words).map(lambda s: tuple(sorted(s))),
        diff_ids=st.lists(st.sampled_from([A, B])).map(tuple),
        history=st.lists(st.builds(HistoryEntry, st.just("2020-01-01T00:00:00Z"), words, words, st.booleans())).map(
            tuple
        ),
        extra=st.dictionaries(st.just("moby.buildkit"), words),
    )
)
def test_a_config_survives_its_own_bytes(config: ImageConfig) -> None:
    assert parse_config(config.to_bytes()) == config
    assert parse_config(config.to_bytes()).to_bytes() == config.to_bytes()


def index(*platforms: str | None) -> Index:
    """An index with one manifest per platform, of that digest."""
    return Index(
        OCI_INDEX,
        tuple(
            Descriptor(OCI_MANIFEST, Digest.of(str(p).encode()), 1, Platform.parse(p) if p else None) for p in platforms
        ),
    )


@pytest.mark.parametrize(
    ("offered", "wanted", "chosen"),
    [
        (("linux/arm64", "linux/amd64"), "linux/amd64", "linux/amd64"),
        (("linux/arm/v6", "linux/arm/v7"), "linux/arm/v7", "linux/arm/v7"),
        (("linux/arm64/v8",), "linux/arm64", "linux/arm64/v8"),
        ((None,), "linux/amd64", None),
    ],
)
def test_the_platform_decides(offered: tuple[str | None, ...], wanted: str, chosen: str | None) -> None:
    assert index(*offered).choose(Platform.parse(wanted)).digest == Digest.of(str(chosen).encode())


def test_a_missing_platform_is_named_with_those_that_there_are() -> None:
    with pytest.raises(InvalidManifest, match="no variant for linux/riscv64; it offers linux/amd64, linux/arm64"):
        index("linux/amd64", "linux/arm64").choose(Platform.parse("linux/riscv64"))


def test_attestations_are_never_chosen() -> None:
    with pytest.raises(InvalidManifest):
        index("unknown/unknown").choose(Platform.parse("linux/amd64"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"schemaVersion":1}',
        b'{"schemaVersion":2}',
        b'{"schemaVersion":2,"config":{"mediaType":"x","digest":"sha256:x","size":1}}',
        b'{"schemaVersion":2,"config":{"mediaType":"x","digest":"sha256:%s","size":-1}}' % (b"a" * 64),
        b'{"schemaVersion":2,"manifests":{}}'.replace(b"{}", b'{"a":1}'),
        b"[" * 100_000,
    ],
)
def test_broken_manifests_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidManifest):
        parse_document(body)


keys = st.sampled_from(
    ["config", "rootfs", "diff_ids", "Env", "Volumes", "history", "manifests", "layers", "schemaVersion"]
)
values = st.none() | st.integers(1, 3) | st.text(max_size=3)
documents = st.recursive(values, lambda inner: st.dictionaries(keys, inner) | st.lists(inner), max_leaves=8)


@given(st.binary(max_size=60) | documents.map(lambda value: json.dumps(value).encode()))
def test_no_document_makes_the_parsers_fail_otherwise(body: bytes) -> None:
    for parser in (parse_document, parse_config):
        try:
            parser(body)
        except InvalidManifest:
            pass


def test_docker_manifests_keep_their_type() -> None:
    manifest = Manifest(DOCKER_MANIFEST, Descriptor("x", A, 1), ())
    assert parse_document(manifest.to_bytes(), DOCKER_MANIFEST) == manifest
