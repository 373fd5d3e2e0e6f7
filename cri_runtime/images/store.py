"""The image store: what the rest of the runtime asks for images by name and gets root filesystems from.

On disk below ``root``: ``catalog.json`` (which images, under which names), ``blobs/`` (what travels) and
``snapshots/`` (layers unpacked). An image is added in the order blobs, snapshots, catalog, and removed in the
opposite one, so a kill at any instant leaves at worst something that nothing names, for the next sweep.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cri_runtime.images import catalog
from cri_runtime.images.blobs import BlobStore
from cri_runtime.images.digest import Digest
from cri_runtime.images.errors import (
    AmbiguousId,
    BlobNotFound,
    ImageInUse,
    ImageNotFound,
    InvalidDigest,
    InvalidManifest,
    InvalidReference,
)
from cri_runtime.images.manifest import (
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    ImageConfig,
    Manifest,
    chain_ids,
    parse_config,
    parse_document,
)
from cri_runtime.images.reference import Reference, normalize, parse
from cri_runtime.images.snapshots import Snapshots
from cri_runtime.images.unpack import Limits

_ID_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})\Z")


@dataclass(frozen=True)
class Layer:
    """One layer of an image."""

    descriptor: Descriptor
    diff_id: Digest
    chain_id: Digest


@dataclass(frozen=True)
class Image:
    """An image of the store at one moment."""

    id: Digest
    """Digest of the config."""
    repo_tags: tuple[str, ...]
    """Full names with a tag."""
    repo_digests: tuple[str, ...]
    """Full names with the digest a registry gave."""
    size_bytes: int
    """Unpacked bytes of all layers."""
    config: ImageConfig
    layers: tuple[Layer, ...]
    """Lowest first."""
    manifest: Descriptor


@dataclass(frozen=True)
class Removal:
    """What a removal did: names that are gone, images that are gone, bytes freed."""

    untagged: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    freed_bytes: int = 0


@dataclass(frozen=True)
class DiskUsage:
    """What the store takes."""

    used_bytes: int
    inodes: int


class ImageStore:
    """Images below one directory. One process and one event loop own it; reading never blocks for long."""

    def __init__(self, root: Path, limits: Limits | None = None) -> None:
        """Open or make the store. Raises OSError, ValueError for a catalog of another release."""
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.root = root
        self.blobs = BlobStore(root)
        self.snapshots = Snapshots(root, self.blobs, limits)
        self.root_sources: list[Callable[[], Iterable[Digest]]] = []
        """Who else refers to blobs and chain ids, for the sweep; the build cache does."""
        self._catalog = root / "catalog.json"
        self._table = catalog.load(self._catalog)
        self._writing = asyncio.Lock()
        self._sweeping = asyncio.Lock()
        self._pins: dict[Digest, set[str]] = {}
        self._held: Counter[Digest] = Counter()
        self._holders = 0
        self._images: dict[Digest, tuple[ImageConfig, tuple[Layer, ...]]] = {}

    # --- reading

    def get(self, reference: str) -> Image:
        """The image with this name, id, or unique beginning of an id.

        Raises ImageNotFound, AmbiguousId, InvalidReference for a text that is neither name nor id.
        """
        return self._image(self._find(reference))

    def images(self) -> list[Image]:
        """All images, newest first."""
        images = [self._image(image_id) for image_id, row in self._table.images.items() if not row.removed]
        return sorted(images, key=lambda image: (image.config.created, image.id), reverse=True)

    def target(self, name: Reference) -> Descriptor | None:
        """What the store has under a full name: the manifest or index as the registry gave it; None if nothing."""
        row = self._table.names.get(str(name))
        return row.target if row else None

    async def lower_dirs(self, image_id: str) -> list[Path]:
        """The image's layers, topmost first, unpacked and ready for ``lowerdir=``. Cheap when they are unpacked.

        ``image_id`` may be any reference. Pin the image first: an unused image may be swept. Raises as :meth:`get`,
        and UnsafeLayer, ContentMismatch, BlobNotFound, OSError when layers must be unpacked anew.
        """
        found = self._find(image_id, removed=True)
        _, layers = self._parsed(found)
        await self._unpack(layers)
        return [self.snapshots.path(layer.chain_id) for layer in reversed(layers)]

    def usage(self) -> DiskUsage:
        """Bytes and inodes of blobs and snapshots. Blocks a little."""
        size, count = self.blobs.usage()
        snapshots = [*self.snapshots.all()]
        return DiskUsage(size + sum(s.size_bytes for s in snapshots), count + sum(s.inodes for s in snapshots))

    # --- pins

    def pin(self, image_id: str, holder: str) -> None:
        """Say that container ``holder`` uses the image. In memory: its owner says so again after a restart, before
        it lets anyone remove images. Raises as :meth:`get`."""
        self._pins.setdefault(self._find(image_id, removed=True), set()).add(holder)

    def unpin(self, image_id: str, holder: str) -> None:
        """Undo :meth:`pin`; idempotent, and the image need not exist."""
        for key, holders in list(self._pins.items()):
            if key == image_id or image_id in ("", key.hex):
                holders.discard(holder)
                if not holders:
                    del self._pins[key]

    def holders(self, image_id: Digest) -> frozenset[str]:
        """Which containers use the image."""
        return frozenset(self._pins.get(image_id, ()))

    # --- changing

    @asynccontextmanager
    async def holding(self, digests: Iterable[Digest] = ()) -> AsyncIterator[Callable[[Iterable[Digest]], None]]:
        """Keep sweeps off what is stored during the block, and off these blobs and chain ids if they exist already.

        Whoever brings an image in holds from before its first look at the store until the image is added. The
        value is a function that holds more.
        """
        held: list[Digest] = []

        def hold(more: Iterable[Digest]) -> None:
            batch = [*more]
            held.extend(batch)
            self._held.update(batch)

        async with self._sweeping:  # a sweep that has already judged them ends first
            self._holders += 1
            hold(digests)
        try:
            yield hold
        finally:
            self._holders -= 1
            self._held.subtract(held)
            self._held += Counter()  # forget what fell to zero
            if not self._holders:
                self.blobs.fresh.clear()
                self.snapshots.fresh.clear()

    async def add(self, manifest: Descriptor, names: Mapping[str, Descriptor]) -> Image:
        """Add the image of a stored manifest, unpacked, under full names (with what each stands for).

        The caller holds the blobs. Raises InvalidManifest, UnsafeLayer, ContentMismatch, BlobNotFound, OSError; the
        catalog is then as it was.
        """
        document = parse_document(self.blobs.read(manifest.digest), manifest.media_type)
        if not isinstance(document, Manifest):
            raise InvalidManifest(f"{manifest.digest} is an index, not an image")
        image_id = document.config.digest
        layers = self._read_layers(document)
        async with self.holding([manifest.digest, image_id, *_layer_digests(layers)]):
            await self._unpack(layers)
            await self._commit(lambda table: table.with_image(image_id, manifest, names))
        return self._image(image_id)

    async def add_config(self, config: ImageConfig, layers: Sequence[Descriptor], names: Iterable[str]) -> Image:
        """Make an image of a config and stored layers, and add it under full names. The caller holds the layers.

        Raises as :meth:`add`.
        """
        data = config.to_bytes()
        async with self.holding():
            config_digest = await asyncio.to_thread(self.blobs.put, data)
            manifest = Manifest(OCI_MANIFEST, Descriptor(OCI_CONFIG, config_digest, len(data)), tuple(layers))
            body = manifest.to_bytes()
            descriptor = Descriptor(OCI_MANIFEST, await asyncio.to_thread(self.blobs.put, body), len(body))
            return await self.add(descriptor, dict.fromkeys(names, descriptor))

    async def tag(self, source: str, target: str) -> None:
        """Give an image one more name. Raises as :meth:`get`, InvalidReference for ``target``."""
        image_id = self._find(source)
        name = normalize(target)
        if name.digest:
            raise InvalidReference(f'"{target}" has a digest; a tag has none')
        await self.name(image_id, {str(name): self._table.images[image_id].manifest})

    async def name(self, image_id: Digest, names: Mapping[str, Descriptor]) -> None:
        """Add full names to an image of the store."""
        manifest = self._table.images[image_id].manifest
        await self._commit(lambda table: table.with_image(image_id, manifest, names))

    async def remove(self, reference: str, force: bool = False) -> Removal:
        """Docker's ``rmi``: drop a name, and the image with its last tag.

        An id drops the image if it has at most one tag, or ``force``. Raises as :meth:`get`, and ImageInUse when
        a container uses the image, unless ``force`` (then only the names go).
        """
        image = self.get(reference)
        name = self._name_in_table(reference)
        tags = set(image.repo_tags)
        if name is not None and tags - {name}:
            await self._commit(lambda table: table.without_names({name}))
            return Removal((name,))
        if name is None and len(tags) > 1 and not force:
            raise ImageInUse(
                f"{image.id.hex[:12]} has several names ({', '.join(sorted(tags))}); remove these, or force"
            )
        if self.holders(image.id) and not force:
            users = ", ".join(sorted(holder[:12] for holder in self.holders(image.id)))
            raise ImageInUse(f'container {users} uses "{reference}"; remove it first')
        return await self.remove_image(image)

    async def remove_image(self, image: Image) -> Removal:
        """Drop an image with all its names. What a container still uses of it stays until it is unpinned."""
        in_use = bool(self.holders(image.id))
        if image.id in self._table.images:
            await self._commit(lambda t: t.without_image(image.id, in_use) if image.id in t.images else t)
        freed = await self.sweep()
        return Removal((*image.repo_tags, *image.repo_digests), () if in_use else (image.id,), freed)

    async def prune(self, unused: bool = False) -> Removal:
        """Drop images without a tag, and with ``unused`` all that no container uses; then sweep."""
        doomed = [i for i in self.images() if not self.holders(i.id) and (unused or not i.repo_tags)]
        for image in doomed:
            await self._commit(lambda t, key=image.id: t.without_image(key, False) if key in t.images else t)  # type: ignore[misc]
        names = tuple(name for image in doomed for name in (*image.repo_tags, *image.repo_digests))
        return Removal(names, tuple(image.id for image in doomed), await self.sweep())

    async def sweep(self) -> int:
        """Remove blobs and snapshots that nothing refers to; returns the bytes freed."""
        async with self._sweeping:
            await self._forget_removed()
            keep = self._roots()
            return await asyncio.to_thread(lambda: self.snapshots.sweep(keep) + self.blobs.sweep(keep))

    # --- inside

    async def _forget_removed(self) -> None:
        gone = [key for key, row in self._table.images.items() if row.removed and not self._pins.get(key)]
        for key in gone:
            await self._commit(lambda table, key=key: table.without_image(key, False))  # type: ignore[misc]
        self._images = {key: parsed for key, parsed in self._images.items() if key in self._table.images}

    def _roots(self) -> set[Digest]:
        keep = set(self._held)
        for image_id, row in self._table.images.items():
            keep |= {image_id, row.manifest.digest, *_layer_digests(self._parsed(image_id)[1])}
        keep |= {row.target.digest for row in self._table.names.values()}
        for source in self.root_sources:
            keep.update(source())
        return keep

    async def _commit(self, change: Callable[[catalog.Table], catalog.Table]) -> None:
        """Apply ``change`` to the newest table, durably, before anyone sees it."""
        async with self._writing:
            table = change(self._table)
            if table != self._table:
                await asyncio.shield(asyncio.to_thread(catalog.save, self._catalog, table))
                self._table = table

    async def _unpack(self, layers: tuple[Layer, ...]) -> None:
        chain: list[Digest] = []
        for layer in layers:
            chain.append(layer.chain_id)
            if self.snapshots.get(layer.chain_id) is None:
                await self.snapshots.ensure(layer.descriptor.digest, layer.diff_id, chain)

    def _find(self, reference: str, removed: bool = False) -> Digest:
        for image_id, row in self._table.images.items():
            if reference in (image_id, image_id.hex) and (removed or not row.removed):
                return image_id
        name = self._name_in_table(reference)
        if name is not None:
            return self._table.names[name].image_id
        return self._find_by_prefix(reference)

    def _name_in_table(self, reference: str) -> str | None:
        try:
            name = parse(reference)
        except InvalidReference:
            return None
        if name.digest and name.tag:
            name = name.by_digest(name.digest)
        full = str(name.with_default_tag())
        return full if full in self._table.names else None

    def _find_by_prefix(self, reference: str) -> Digest:
        match = _ID_PREFIX.match(reference)
        if match is None:
            parse(reference)  # a text that is neither an id nor a name is worth saying so
            raise ImageNotFound(reference)
        found = [i for i, row in self._table.images.items() if i.hex.startswith(match[1]) and not row.removed]
        if len(found) > 1:
            raise AmbiguousId(f'"{reference}" begins the ids of {len(found)} images; give more digits')
        if not found:
            raise ImageNotFound(reference)
        return found[0]

    def _image(self, image_id: Digest) -> Image:
        config, layers = self._parsed(image_id)
        names = self._table.names_of(image_id)
        snapshots = [self.snapshots.get(layer.chain_id) for layer in layers]
        return Image(
            id=image_id,
            repo_tags=tuple(name for name in names if "@" not in name),
            repo_digests=tuple(name for name in names if "@" in name),
            size_bytes=sum(
                s.size_bytes if s else layer.descriptor.size for s, layer in zip(snapshots, layers, strict=True)
            ),
            config=config,
            layers=layers,
            manifest=self._table.images[image_id].manifest,
        )

    def _parsed(self, image_id: Digest) -> tuple[ImageConfig, tuple[Layer, ...]]:
        if image_id not in self._images:
            row = self._table.images[image_id]
            document = parse_document(self.blobs.read(row.manifest.digest), row.manifest.media_type)
            if not isinstance(document, Manifest):
                raise BlobNotFound(f"{row.manifest.digest} is no image manifest")
            self._images[image_id] = (self._read_config(image_id), self._read_layers(document))
        return self._images[image_id]

    def _read_config(self, image_id: Digest) -> ImageConfig:
        return parse_config(self.blobs.read(image_id))

    def _read_layers(self, document: Manifest) -> tuple[Layer, ...]:
        config = self._read_config(document.config.digest)
        if len(config.diff_ids) != len(document.layers):
            raise InvalidManifest(
                f"the manifest has {len(document.layers)} layers and its config {len(config.diff_ids)}; it is no image"
            )
        rows = zip(document.layers, config.diff_ids, chain_ids(config.diff_ids), strict=True)
        return tuple(Layer(*row) for row in rows)


def _layer_digests(layers: tuple[Layer, ...]) -> list[Digest]:
    return [digest for layer in layers for digest in (layer.descriptor.digest, layer.chain_id)]


__all__ = ["DiskUsage", "Image", "ImageConfig", "ImageNotFound", "ImageStore", "InvalidDigest", "Layer", "Removal"]
