"""Images in files: ``save`` and ``load`` of what docker, skopeo and podman write.

We write an OCI image layout in a tar; for the docker format with the ``manifest.json`` that docker itself adds to it.
We read OCI layouts and docker archives old and new, compressed or not, in one pass: every file becomes a blob under its
own digest, then the index says which of them make images, and the rest is swept.
"""

import asyncio
import json
import posixpath
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cri_runtime.images.digest import Digest
from cri_runtime.images.entry import BoundedTarInfo
from cri_runtime.images.errors import ImageError, InvalidArchive, InvalidManifest, InvalidReference, UnsafeLayer
from cri_runtime.images.layer import CHUNK_BYTES, LayerReader
from cri_runtime.images.manifest import (
    MANIFEST_BYTES_MAX,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    dump,
    parse_descriptor,
    parse_document,
)
from cri_runtime.images.reference import normalize, parse
from cri_runtime.images.store import Image, ImageStore

_REF_NAME = "org.opencontainers.image.ref.name"
_FULL_NAME = "io.containerd.image.name"
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_ENTRIES_MAX = 100_000


# --- saving


@dataclass(frozen=True)
class _Named:
    """An image to save, with the names that go along (full, with tag)."""

    image: Image
    names: tuple[str, ...]


def choose(store: ImageStore, references: Sequence[str]) -> list[_Named]:
    """What ``save`` of these references means: a name goes alone, an id takes none. Raises as ``store.get``."""
    chosen: dict[Digest, _Named] = {}
    for reference in references:
        image = store.get(reference)
        names = tuple(name for name in image.repo_tags if _means(reference, name))
        before = chosen.get(image.id, _Named(image, ()))
        chosen[image.id] = _Named(image, tuple(sorted({*before.names, *names})))
    return [*chosen.values()]


def _means(reference: str, name: str) -> bool:
    try:
        return str(normalize(reference)) == name
    except InvalidReference:
        return False


def save(store: ImageStore, images: Sequence[_Named], docker: bool) -> Iterator[bytes]:
    """The archive, in chunks; reads blobs while it goes. The same images give the same bytes. Raises OSError."""
    yield from _file("oci-layout", _LAYOUT)
    yield from _file("index.json", _index(images))
    if docker:
        yield from _file("manifest.json", _docker_manifest(images))
    yield from _directory("blobs")
    yield from _directory("blobs/sha256")
    for digest in sorted({digest for named in images for digest in _digests(named.image)}):
        yield from _blob(store, digest)
    yield b"\0" * tarfile.BLOCKSIZE * 2


def _digests(image: Image) -> list[Digest]:
    return [image.manifest.digest, image.id, *(layer.descriptor.digest for layer in image.layers)]


def _index(images: Sequence[_Named]) -> bytes:
    entries: list[dict[str, Any]] = []
    for named in images:
        descriptor = named.image.manifest.to_json()
        for name in named.names:
            annotations = {_FULL_NAME: name, _REF_NAME: parse(name).tag}
            entries.append({**descriptor, "annotations": annotations})
        if not named.names:
            entries.append(descriptor)
    return dump({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})


def _docker_manifest(images: Sequence[_Named]) -> bytes:
    entries = [
        {
            "Config": _path(named.image.id),
            "RepoTags": [parse(name).familiar for name in named.names] or None,
            "Layers": [_path(layer.descriptor.digest) for layer in named.image.layers],
        }
        for named in images
    ]
    return dump(entries)


def _path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _header(name: str, size: int, kind: bytes, mode: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type, entry.mode = size, kind, mode
    return entry.tobuf(tarfile.PAX_FORMAT)


def _directory(name: str) -> Iterator[bytes]:
    yield _header(name, 0, tarfile.DIRTYPE, 0o755)


def _file(name: str, data: bytes) -> Iterator[bytes]:
    yield _header(name, len(data), tarfile.REGTYPE, 0o644) + data + _padding(len(data))


def _blob(store: ImageStore, digest: Digest) -> Iterator[bytes]:
    size = store.blobs.size(digest)
    yield _header(_path(digest), size, tarfile.REGTYPE, 0o644)
    with store.blobs.open(digest) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
    yield _padding(size)


def _padding(size: int) -> bytes:
    return b"\0" * (-size % tarfile.BLOCKSIZE)


# --- loading


async def load(store: ImageStore, archive: Path) -> list[str]:
    """Read a file's images into the store. Returns their names, or the ids of nameless ones.

    Raises InvalidArchive, InvalidManifest, UnsafeLayer, ContentMismatch, OSError.
    """
    async with store.holding():
        files = await asyncio.to_thread(_ingest, store, archive)
        loaded = []
        for manifest, names in await asyncio.to_thread(_images, store, files):
            try:
                image = await store.add(manifest, dict.fromkeys(names, manifest))
            except ImageError as err:
                raise InvalidArchive(f"the archive's image {names or manifest.digest}: {err}") from err
            loaded += names or [image.id]
        return loaded


@dataclass(frozen=True)
class _Files:
    """The archive's files by path, as blobs; links by path."""

    blobs: Mapping[str, Digest]
    links: Mapping[str, str]

    def find(self, path: str) -> Digest | None:
        """The blob of a file, through links."""
        path = posixpath.normpath(path)
        for _ in range(8):
            if path not in self.links:
                break
            path = posixpath.normpath(self.links[path])
        return self.blobs.get(path)


def _ingest(store: ImageStore, archive: Path) -> _Files:
    blobs: dict[str, Digest] = {}
    links: dict[str, str] = {}
    with archive.open("rb") as file, LayerReader(file) as reader:
        try:
            with tarfile.open(fileobj=reader, mode="r|", bufsize=CHUNK_BYTES, tarinfo=BoundedTarInfo) as tar:
                while (entry := tar.next()) is not None:
                    name = posixpath.normpath(entry.name)
                    if entry.issym() or entry.islnk():
                        base = posixpath.dirname(name) if entry.issym() else ""
                        links[name] = posixpath.join(base, entry.linkname)
                    elif entry.isfile():
                        blobs[name] = _ingest_file(store, tar, entry)
                    tar.members.clear()  # type: ignore[attr-defined]
                    if len(blobs) + len(links) > _ENTRIES_MAX:
                        raise InvalidArchive(f"the archive has more than {_ENTRIES_MAX} files")
        except (tarfile.TarError, UnsafeLayer) as err:
            raise InvalidArchive(f"this is no archive of images: {err}") from err
    return _Files(blobs, links)


def _ingest_file(store: ImageStore, tar: tarfile.TarFile, entry: tarfile.TarInfo) -> Digest:
    content = tar.extractfile(entry)
    if content is None:
        raise InvalidArchive(f'"{entry.name}" cannot be read')
    with store.blobs.writer() as writer:
        while chunk := content.read(CHUNK_BYTES):
            writer.write(chunk)
        return writer.commit()


_Found = tuple[Descriptor, list[str]]


def _images(store: ImageStore, files: _Files) -> list[_Found]:
    """The archive's images: what its index says, else what docker's manifest.json says."""
    index, manifest = files.find("index.json"), files.find("manifest.json")
    if index is not None and files.find("oci-layout") is not None:
        found = list(_layout_images(store, _json(store, index, "index.json")))
    elif manifest is not None:
        found = list(_docker_images(store, files, _json(store, manifest, "manifest.json")))
    else:
        raise InvalidArchive("this is no archive of images: it has neither an index.json nor a manifest.json")
    if not found:
        raise InvalidArchive("the archive holds no image")
    return found


def _json(store: ImageStore, digest: Digest, name: str) -> Any:
    if store.blobs.size(digest) > MANIFEST_BYTES_MAX:
        raise InvalidArchive(f"the archive's {name} is larger than {MANIFEST_BYTES_MAX} bytes")
    try:
        return json.loads(store.blobs.read(digest))
    except (ValueError, RecursionError) as err:
        raise InvalidArchive(f"the archive's {name} is not JSON") from err


def _layout_images(store: ImageStore, index: Any) -> Iterator[_Found]:
    entries = index.get("manifests") if isinstance(index, dict) else None
    found: dict[Digest, _Found] = {}
    for entry in entries if isinstance(entries, list) else ():
        descriptor = _manifest_of(store, parse_descriptor(entry))
        names = _annotated_names(parse_descriptor(entry).annotations)
        found.setdefault(descriptor.digest, (descriptor, []))[1].extend(names)
    yield from found.values()


def _manifest_of(store: ImageStore, descriptor: Descriptor) -> Descriptor:
    """The image of this platform behind an index in the index."""
    for _ in range(3):
        if descriptor.digest not in store.blobs:
            raise InvalidArchive(f"the archive speaks of {descriptor.digest}, which it does not hold")
        document = parse_document(store.blobs.read(descriptor.digest), descriptor.media_type)
        if isinstance(document, Manifest):
            return Descriptor(document.media_type, descriptor.digest, descriptor.size)
        assert isinstance(document, Index)  # by parse_document's type
        descriptor = document.choose(Platform.host())
    raise InvalidManifest("the archive's indexes are nested too deep")


def _annotated_names(annotations: Mapping[str, str]) -> list[str]:
    """A full name, or a reference name that is more than a tag."""
    name = annotations.get(_FULL_NAME) or annotations.get(_REF_NAME, "")
    if _FULL_NAME not in annotations and not (":" in name or "/" in name):
        return []
    return [str(normalize(name))]


def _docker_images(store: ImageStore, files: _Files, body: Any) -> Iterator[_Found]:
    for entry in body if isinstance(body, list) else ():
        if not isinstance(entry, dict):
            raise InvalidArchive("the archive's manifest.json holds something else than objects")
        config = _member(store, files, entry.get("Config"), OCI_CONFIG)
        layers = [_member(store, files, path, OCI_LAYER) for path in entry.get("Layers") or []]
        manifest = Manifest(OCI_MANIFEST, config, tuple(_typed(store, layer) for layer in layers))
        data = manifest.to_bytes()
        digest = store.blobs.put(data)
        names = [str(normalize(str(tag))) for tag in entry.get("RepoTags") or []]
        yield Descriptor(OCI_MANIFEST, digest, len(data)), names


def _member(store: ImageStore, files: _Files, path: Any, media_type: str) -> Descriptor:
    digest = files.find(str(path))
    if digest is None:
        raise InvalidArchive(f'the archive speaks of "{path}", which it does not hold')
    return Descriptor(media_type, digest, store.blobs.size(digest))


def _typed(store: ImageStore, layer: Descriptor) -> Descriptor:
    with store.blobs.open(layer.digest) as file:
        magic = file.read(4)
    suffix = "+gzip" if magic.startswith(b"\x1f\x8b") else "+zstd" if magic == b"\x28\xb5\x2f\xfd" else ""
    return Descriptor(layer.media_type + suffix, layer.digest, layer.size)
