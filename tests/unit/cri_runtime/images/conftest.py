"""Stores, layers and a registry for tests of images."""

import gzip
import io
import tarfile
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cri_runtime.images.digest import Digest
from cri_runtime.images.hosts import Registries
from cri_runtime.images.layer import LayerReader
from cri_runtime.images.manifest import OCI_LAYER, Descriptor, ImageConfig, Platform
from cri_runtime.images.pull import Puller
from cri_runtime.images.push import Pusher
from cri_runtime.images.remote import Session
from cri_runtime.images.store import Image, ImageStore
from cri_runtime.images.unpack import Limits, Usage, unpack
from cri_runtime.registry.serve import running


def entry(name: str, content: bytes | None = None, **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """A tar entry: a file with ``content``, else a directory unless ``type`` says otherwise."""
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
    info.mode = 0o755 if content is None else 0o644
    info.size = len(content or b"")
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content or b""


def make_tar(entries: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar of entries."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def tar() -> Callable[..., bytes]:
    """``tar(e1, e2)`` of entries made by the ``e`` fixture."""
    return lambda *entries: make_tar(entries)


@pytest.fixture
def e() -> Callable[..., tuple[tarfile.TarInfo, bytes]]:
    """``e(name, content, **tar_header_fields)``."""
    return entry


@pytest.fixture
def unpacked(tmp_path: Path) -> Callable[..., tuple[Path, Usage]]:
    """``unpacked(tar_bytes, lowers, limits)`` -> the directory and what it takes."""
    count = 0

    def run(data: bytes, lowers: list[Path] | None = None, limits: Limits | None = None) -> tuple[Path, Usage]:
        nonlocal count
        count += 1
        target = tmp_path / f"layer{count}"
        target.mkdir()
        with LayerReader(io.BytesIO(data)) as reader:
            return target, unpack(reader, target, lowers or [], limits)

    return run


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    """An empty image store."""
    return ImageStore(tmp_path / "store")


@pytest.fixture
def add(store: ImageStore) -> Callable[..., object]:
    """``await add(names, layers=[tar_bytes], **config)`` adds an image to the store."""

    async def run(*names: str, layers: list[bytes] | None = None, **config: object) -> Image:
        return await add_image(store, names, layers or [make_tar([entry("hello", b"world")])], **config)

    return run


async def add_image(store: ImageStore, names: Iterable[str], layers: list[bytes], **config: object) -> Image:
    """Add an image of gzip layers."""
    blobs = [gzip.compress(data, mtime=0) for data in layers]
    async with store.holding():
        descriptors = [Descriptor(OCI_LAYER + "+gzip", store.blobs.put(blob), len(blob)) for blob in blobs]
        host = Platform.host()
        described = ImageConfig(
            os=host.os,
            architecture=host.architecture,
            diff_ids=tuple(Digest.of(data) for data in layers),
            **config,  # type: ignore[arg-type]
        )
        return await store.add_config(described, descriptors, names)


@dataclass
class Lab:
    """A registry, and a store that pulls from it and pushes to it."""

    address: str
    root: Path
    store: ImageStore
    puller: Puller
    pusher: Pusher
    session: Session


@pytest.fixture
async def lab(tmp_path: Path, store: ImageStore) -> AsyncIterator[Lab]:
    """See Lab."""
    async with running(tmp_path / "registry", "127.0.0.1:0") as address, Session() as session:
        puller, pusher = Puller(store, Registries(), session), Pusher(store, Registries(), session)
        yield Lab(address, tmp_path / "registry", store, puller, pusher, session)
