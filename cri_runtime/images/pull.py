"""Pulling: resolve the name, choose the platform, fetch what is missing, unpack, add.

A blob that several images share is fetched once, also by pulls at the same time: whoever comes second waits for the
first and finds it done. Every byte is hashed as it arrives; nothing unverified is ever named.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

from cri_runtime.images.blobs import BlobWriter
from cri_runtime.images.digest import Digest
from cri_runtime.images.errors import (
    ContentMismatch,
    ImageError,
    InvalidManifest,
    NotInRegistry,
    RegistryError,
    RegistryUnavailable,
)
from cri_runtime.images.gather import gather
from cri_runtime.images.hosts import Auth, Registries
from cri_runtime.images.locks import KeyedLocks
from cri_runtime.images.manifest import (
    INDEXES,
    MANIFEST_BYTES_MAX,
    MANIFESTS,
    Descriptor,
    Manifest,
    Platform,
    chain_ids,
    parse_config,
    parse_document,
)
from cri_runtime.images.reference import Reference, normalize
from cri_runtime.images.remote import Remote, Session, read_bounded
from cri_runtime.images.store import Image, ImageStore
from cri_runtime.images.transfer import Progress, Report, silent

_ACCEPT = ", ".join((*INDEXES, *MANIFESTS))
_CHUNK_BYTES = 1 << 20
_PARALLEL = 3
_ATTEMPTS = 4


@dataclass(frozen=True)
class _Resolved:
    """What a name means at an endpoint."""

    remote: Remote
    target: Descriptor
    """The manifest or index that the name stands for."""
    manifest: Descriptor
    document: Manifest


class Puller:
    """Brings images into a store. One per store, so that pulls share downloads."""

    def __init__(self, store: ImageStore, registries: Registries, session: Session) -> None:
        self._store = store
        self._registries = registries
        self._session = session
        self._locks = KeyedLocks()

    async def pull(
        self, name: str, platform: Platform | None = None, auth: Auth | None = None, report: Report = silent
    ) -> Image:
        """Pull an image and name it: ``repository:tag`` and ``repository@digest``, or just the latter by digest.

        Raises InvalidReference, NotInRegistry, RegistryDenied, RegistryUnavailable, ContentMismatch, InvalidManifest,
        UnsafeLayer, OSError; the store's names are then as they were.
        """
        reference = normalize(name)
        async with self._store.holding() as hold:
            resolved = await self._resolve(reference, platform or Platform.host(), auth)
            document = resolved.document
            hold([resolved.target.digest, resolved.manifest.digest, document.config.digest])
            hold(layer.digest for layer in document.layers)
            await self._fetch_content(resolved, report)
            report(Progress("", "unpacking"))
            image = await self._store.add(resolved.manifest, _names(reference, resolved.target))
            report(Progress("", "done"))
            return image

    async def _resolve(self, reference: Reference, platform: Platform, auth: Auth | None) -> _Resolved:
        """Ask the mirrors, then the registry; the first that has the name decides."""
        failures: list[ImageError] = []
        for endpoint in self._registries.endpoints(reference.domain, auth):
            remote = self._session.remote(endpoint, reference.path)
            try:
                return await self._resolve_at(remote, reference, platform)
            except (RegistryError, ContentMismatch) as err:
                failures.append(err)
        raise _worst(failures)

    async def _resolve_at(self, remote: Remote, reference: Reference, platform: Platform) -> _Resolved:
        target, data = await self._manifest(remote, reference.selector, reference.familiar, reference.digest)
        manifest = target
        for _ in range(3):  # an index in an index is legal; more depth is a trick
            document = parse_document(data, manifest.media_type)
            if isinstance(document, Manifest):
                return _Resolved(remote, target, manifest, document)
            manifest = document.choose(platform)
            manifest, data = await self._manifest(remote, manifest.digest, reference.familiar, manifest.digest)
        raise InvalidManifest(f"{reference.familiar}: its indexes are nested too deep")

    async def _manifest(
        self, remote: Remote, selector: str, what: str, expected: Digest | None
    ) -> tuple[Descriptor, bytes]:
        """Fetch and store a manifest or index, under its digest."""
        if expected is not None and expected in self._store.blobs:
            data = await asyncio.to_thread(self._store.blobs.read, expected)
            return Descriptor(_media_type(data, ""), expected, len(data)), data
        headers = {"Accept": _ACCEPT}
        async with remote.request("GET", remote.url(f"manifests/{selector}"), what, headers=headers) as response:
            data = await read_bounded(response, MANIFEST_BYTES_MAX)
            media_type = _media_type(data, response.content_type)
        digest = Digest.of(data, expected.algorithm if expected else "sha256")
        if expected is not None and digest != expected:
            raise ContentMismatch(f"{what}: the registry sent the manifest {digest} for {expected}")
        await asyncio.to_thread(self._store.blobs.put, data, digest)
        return Descriptor(media_type, digest, len(data)), data

    async def _fetch_content(self, resolved: _Resolved, report: Report) -> None:
        """Fetch config and layers; unpack each layer as soon as it and those below are there."""
        slots = asyncio.Semaphore(_PARALLEL)
        document = resolved.document
        await self.blob(resolved.remote, document.config, silent)
        config = parse_config(await asyncio.to_thread(self._store.blobs.read, document.config.digest))
        chain = chain_ids(config.diff_ids)
        arrived = [asyncio.Event() for _ in document.layers]

        async def fetch(number: int, layer: Descriptor) -> None:
            async with slots:
                await self.blob(resolved.remote, layer, report)
            arrived[number].set()

        async def unpack() -> None:
            for number, layer in enumerate(document.layers):
                await arrived[number].wait()
                if len(chain) == len(document.layers):  # else the store says what is wrong
                    await self._store.snapshots.ensure(layer.digest, config.diff_ids[number], chain[: number + 1])

        await gather([*(fetch(n, layer) for n, layer in enumerate(document.layers)), unpack()])

    async def blob(self, remote: Remote, wanted: Descriptor, report: Report) -> None:
        """Make sure that a blob is in the store. Raises as :meth:`pull`."""
        async with self._locks(wanted.digest):
            if wanted.digest in self._store.blobs:
                report(Progress(wanted.digest, "exists", wanted.size, wanted.size))
                return
            await self._download(remote, wanted, report)
            report(Progress(wanted.digest, "done", wanted.size, wanted.size))

    async def _download(self, remote: Remote, wanted: Descriptor, report: Report) -> None:
        """Fetch a blob; after a lost connection go on where it broke off."""
        with self._store.blobs.writer(wanted.digest.algorithm) as writer:
            for attempt in range(_ATTEMPTS):
                try:
                    await self._download_rest(remote, wanted, writer, report)
                    break
                except (aiohttp.ClientError, ConnectionError, TimeoutError) as err:
                    if attempt + 1 == _ATTEMPTS:
                        raise RegistryUnavailable(
                            remote.host, f"{wanted.digest}: registry {remote.host} keeps breaking off: {err}"
                        ) from err
            await asyncio.to_thread(writer.commit, wanted.digest, wanted.size)

    async def _download_rest(self, remote: Remote, wanted: Descriptor, writer: BlobWriter, report: Report) -> None:
        headers = {"Range": f"bytes={writer.size}-"} if writer.size else {}
        url = remote.url(f"blobs/{wanted.digest}")
        async with remote.request("GET", url, wanted.digest, headers=headers, accept_status=(200, 206)) as response:
            skip = writer.size if response.status == 200 else 0  # it does not know ranges and begins anew
            async for data in response.content.iter_chunked(_CHUNK_BYTES):
                chunk = data[skip:]
                skip -= min(skip, len(data))
                if writer.size + len(chunk) > wanted.size:
                    raise ContentMismatch(f"{wanted.digest}: more than the promised {wanted.size} bytes arrive")
                await asyncio.to_thread(writer.write, chunk)
                report(Progress(wanted.digest, "downloading", writer.size, wanted.size))


def _media_type(data: bytes, content_type: str) -> str:
    return parse_document(data, content_type).media_type


def _names(reference: Reference, target: Descriptor) -> dict[str, Descriptor]:
    names = {str(reference.by_digest(target.digest)): target}
    if reference.tag and not reference.digest:
        names[str(reference)] = target
    return names


def _worst(failures: Sequence[ImageError]) -> ImageError:
    """What to tell when no endpoint had it: the word of the registry itself, which was asked last.

    When it does not answer but a mirror said that it has no such image, the mirror's: the mirror may be all there is.
    """
    mirror_denials = [failure for failure in failures[:-1] if isinstance(failure, NotInRegistry)]
    return mirror_denials[0] if mirror_denials and isinstance(failures[-1], RegistryUnavailable) else failures[-1]
