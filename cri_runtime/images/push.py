"""Pushing: only what the registry lacks, mounted from a repository of the same registry where it may have it."""

import asyncio
from collections.abc import AsyncIterator, Iterator

from yarl import URL

from cri_runtime.images.digest import Digest
from cri_runtime.images.errors import RegistryError
from cri_runtime.images.gather import gather
from cri_runtime.images.hosts import Auth, Registries
from cri_runtime.images.manifest import Descriptor
from cri_runtime.images.reference import Reference, normalize, parse
from cri_runtime.images.remote import Remote, Session
from cri_runtime.images.store import Image, ImageStore
from cri_runtime.images.transfer import Progress, Report, silent

_CHUNK_BYTES = 1 << 20
_PATCH_BYTES = 8 << 20
_PARALLEL = 3
_OCTETS = {"Content-Type": "application/octet-stream"}


class Pusher:
    """Sends images of a store."""

    def __init__(self, store: ImageStore, registries: Registries, session: Session) -> None:
        self._store = store
        self._registries = registries
        self._session = session

    async def push(self, source: str, target: str = "", auth: Auth | None = None, report: Report = silent) -> Digest:
        """Push an image under ``target``, or under its own name. Returns the manifest's digest at the registry.

        Raises as :meth:`ImageStore.get`, InvalidReference, RegistryDenied, RegistryUnavailable, RegistryError.
        """
        image = self._store.get(source)
        reference = normalize(target or source)
        endpoint = self._registries.endpoints(reference.domain, auth)[-1]
        remote = self._session.remote(endpoint, reference.path)
        blobs = [image.layers[n].descriptor for n in range(len(image.layers))]
        config = Descriptor("", image.id, self._store.blobs.size(image.id))
        async with self._store.holding([image.id, image.manifest.digest, *(blob.digest for blob in blobs)]):
            slots = asyncio.Semaphore(_PARALLEL)
            await gather(
                [self._blob(remote, blob, image, reference, slots, report) for blob in dict.fromkeys([*blobs, config])]
            )
            await self._manifest(remote, image, reference)
        await self._store.name(image.id, {str(reference.by_digest(image.manifest.digest)): image.manifest})
        report(Progress("", "done"))
        return image.manifest.digest

    async def _blob(
        self,
        remote: Remote,
        blob: Descriptor,
        image: Image,
        reference: Reference,
        slots: asyncio.Semaphore,
        report: Report,
    ) -> None:
        async with slots:
            if await self._exists(remote, blob):
                report(Progress(blob.digest, "exists", blob.size, blob.size))
                return
            location = await self._mount(remote, blob, image, reference)
            if location is None:
                report(Progress(blob.digest, "mounted", blob.size, blob.size))
                return
            await self._upload(remote, location, blob, report)
            report(Progress(blob.digest, "done", blob.size, blob.size))

    @staticmethod
    async def _exists(remote: Remote, blob: Descriptor) -> bool:
        url = remote.url(f"blobs/{blob.digest}")
        async with remote.request("HEAD", url, blob.digest, actions=_PUSH, accept_status=(200, 404)) as response:
            return response.status == 200

    async def _mount(self, remote: Remote, blob: Descriptor, image: Image, reference: Reference) -> str | None:
        """Begin an upload: its location; None when the registry had the blob in another repository."""
        query = ""
        for other in self._repositories(blob.digest, reference):
            query = f"?mount={blob.digest}&from={other}"
            break
        url = remote.url("blobs/uploads/") + query
        async with remote.request("POST", url, blob.digest, actions=_PUSH, accept_status=(201, 202)) as response:
            return None if response.status == 201 else self._location(remote, response.headers.get("Location", ""))

    def _repositories(self, blob: Digest, reference: Reference) -> Iterator[str]:
        """Other repositories of the same registry that images of the store with this blob came from or went to."""
        for image in self._store.images():
            if any(layer.descriptor.digest == blob for layer in image.layers):
                for name in map(parse, image.repo_digests):
                    if name.domain == reference.domain and name.path != reference.path:
                        yield name.path

    @staticmethod
    def _location(remote: Remote, location: str) -> str:
        if not location:
            raise RegistryError(remote.host, f"registry {remote.host} does not say where to upload")
        return remote.absolute(location)

    async def _upload(self, remote: Remote, location: str, blob: Descriptor, report: Report) -> None:
        """In one request; in pieces when the registry, or what stands before it, finds that too large."""
        headers = {**_OCTETS, "Content-Length": str(blob.size)}
        async with remote.request(
            "PUT",
            _with_digest(location, blob.digest),
            blob.digest,
            actions=_PUSH,
            headers=headers,
            data=lambda: self._stream(blob, report),
            accept_status=(201, 413),
        ) as response:
            if response.status == 201:
                return
        await self._upload_in_pieces(remote, blob, report)

    async def _upload_in_pieces(self, remote: Remote, blob: Descriptor, report: Report) -> None:
        async with remote.request(
            "POST", remote.url("blobs/uploads/"), blob.digest, actions=_PUSH, accept_status=(202,)
        ) as response:
            location = self._location(remote, response.headers.get("Location", ""))
        for start in range(0, blob.size, _PATCH_BYTES):
            piece = await asyncio.to_thread(self._piece, blob, start)
            headers = {**_OCTETS, "Content-Range": f"{start}-{start + len(piece) - 1}"}
            async with remote.request(
                "PATCH",
                location,
                blob.digest,
                actions=_PUSH,
                headers=headers,
                data=piece,
                accept_status=(202,),
                attempts=1,
            ) as response:
                location = self._location(remote, response.headers.get("Location", location))
            report(Progress(blob.digest, "pushing", start + len(piece), blob.size))
        url = _with_digest(location, blob.digest)
        async with remote.request("PUT", url, blob.digest, actions=_PUSH, accept_status=(201,)):
            pass

    def _piece(self, blob: Descriptor, start: int) -> bytes:
        with self._store.blobs.open(blob.digest) as file:
            file.seek(start)
            return file.read(_PATCH_BYTES)

    async def _stream(self, blob: Descriptor, report: Report) -> AsyncIterator[bytes]:
        sent = 0
        with self._store.blobs.open(blob.digest) as file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                yield chunk
                sent += len(chunk)
                report(Progress(blob.digest, "pushing", sent, blob.size))

    async def _manifest(self, remote: Remote, image: Image, reference: Reference) -> None:
        data = await asyncio.to_thread(self._store.blobs.read, image.manifest.digest)
        selector = reference.tag or image.manifest.digest
        headers = {"Content-Type": image.manifest.media_type}
        async with remote.request(
            "PUT",
            remote.url(f"manifests/{selector}"),
            reference.familiar,
            actions=_PUSH,
            headers=headers,
            data=data,
            accept_status=(201,),
        ):
            pass


_PUSH = "pull,push"


def _with_digest(location: str, digest: Digest) -> str:
    return str(URL(location).update_query(digest=str(digest)))
