"""A read-through mirror: what is not here is fetched from one upstream registry, kept, and served from then on.

A tag that came from upstream is asked for there again at each pull (a HEAD request), so that it follows; when upstream
does not answer, what is here is served: a lab works offline after its first pull. A tag that was pushed here is ours.

A blob is handed on while it arrives. Who asks for it meanwhile follows the same download; it ends, and is kept, also
when all of them have gone. An upstream that sends other bytes than the digest says makes the answer break off, and
nothing is kept.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from typing import BinaryIO

import aiohttp

from cri_runtime.images.blobs import BlobWriter
from cri_runtime.images.digest import Digest
from cri_runtime.images.errors import ContentMismatch, ImageError, NotInRegistry, RegistryUnavailable
from cri_runtime.images.hosts import Endpoint
from cri_runtime.images.manifest import INDEXES, MANIFEST_BYTES_MAX, MANIFESTS
from cri_runtime.images.remote import Remote, Session, read_bounded
from cri_runtime.registry.manifests import read_manifest
from cri_runtime.registry.repositories import Repositories, Repository, is_tag

log = logging.getLogger(__name__)

_ACCEPT = {"Accept": ", ".join((*INDEXES, *MANIFESTS))}
_CHUNK_BYTES = 1 << 20


class Download:
    """A blob on its way from upstream."""

    def __init__(self, size: int, writer: BlobWriter) -> None:
        self.size = size
        self.file: BinaryIO = writer.path.open("rb")
        """What has arrived; the last reader closes it."""
        self.arrived = 0
        self.failure: BaseException | None = None
        self.ended = False
        self._moved = asyncio.Condition()
        self._readers = 1  # the download itself

    async def note(self, arrived: int) -> None:
        """Tell the readers how far it is."""
        async with self._moved:
            self.arrived = arrived
            self._moved.notify_all()

    async def end(self, failure: BaseException | None) -> None:
        """Tell the readers that it is over."""
        async with self._moved:
            self.ended, self.failure = True, failure
            self._moved.notify_all()
        self.release()

    def hold(self) -> None:
        """Become a reader."""
        self._readers += 1

    def release(self) -> None:
        """Stop being one."""
        self._readers -= 1
        if not self._readers:
            self.file.close()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The blob's bytes as they arrive. The last ones come only when the digest was right.

        Raises what made the download fail.
        """
        offset = 0
        while True:
            async with self._moved:
                while not self.ended and self._ready <= offset:
                    await self._moved.wait()
            if self.failure is not None:
                raise self.failure
            if offset == self._ready:
                return
            chunk = await asyncio.to_thread(self._read, offset, min(_CHUNK_BYTES, self._ready - offset))
            offset += len(chunk)
            yield chunk

    @property
    def _ready(self) -> int:
        """How much may be handed on: the last byte is kept back, so that nobody holds an unverified whole."""
        return self.arrived if self.ended else self.arrived - 1

    def _read(self, offset: int, count: int) -> bytes:
        # Readers share the file, each in a thread of its own: none may move another's position.
        return os.pread(self.file.fileno(), count, offset)


class Mirror:
    """One upstream over one storage. ``tasks`` owns the downloads."""

    def __init__(
        self, repositories: Repositories, session: Session, endpoint: Endpoint, tasks: asyncio.TaskGroup
    ) -> None:
        self._repositories = repositories
        self._session = session
        self._endpoint = endpoint
        self._tasks = tasks
        self._downloads: dict[Digest, asyncio.Future[Download]] = {}

    def _remote(self, repository: Repository) -> Remote:
        return self._session.remote(self._endpoint, repository.name)

    async def refresh(self, repository: Repository, reference: str) -> None:
        """Bring a manifest or index, unless it is here and up to date or ours; does nothing when upstream has none.

        Does nothing either when upstream does not answer, or sends what is no manifest: then what is here decides.
        """
        try:
            await self._refresh(repository, reference)
        except NotInRegistry:
            pass
        except (ImageError, aiohttp.ClientError, TimeoutError) as err:
            log.warning("upstream not asked", extra={"repository": repository.name, "cause": str(err)})

    async def _refresh(self, repository: Repository, reference: str) -> None:
        have = repository.maybe_resolve(reference)
        if have is not None and (not is_tag(reference) or not repository.is_upstream(reference)):
            return
        remote = self._remote(repository)
        if have is not None and await self._head(remote, reference) == have:
            return
        async with remote.request("GET", remote.url(f"manifests/{reference}"), reference, headers=_ACCEPT) as response:
            data = await read_bounded(response, MANIFEST_BYTES_MAX)
            media_type = response.content_type
        expected = None if is_tag(reference) else Digest(reference)
        digest = Digest.of(data, expected.algorithm if expected else "sha256")
        if expected not in (None, digest):
            raise ContentMismatch(f"upstream sent the manifest {digest} for {reference}")
        reading = read_manifest(data, media_type)
        with self._repositories.linking(digest):
            async with self._repositories.locks(repository.name):
                await asyncio.to_thread(self._repositories.blobs.put, data, digest)
                tag = None if expected else reference
                await asyncio.to_thread(repository.put_upstream, digest, reading.media_type, tag, reading.subject)
        log.info("mirrored", extra={"repository": repository.name, "reference": reference, "digest": digest})

    @staticmethod
    async def _head(remote: Remote, tag: str) -> str | None:
        async with remote.request("HEAD", remote.url(f"manifests/{tag}"), tag, headers=_ACCEPT, attempts=1) as response:
            return response.headers.get("Docker-Content-Digest")

    async def size(self, repository: Repository, digest: Digest) -> int:
        """How large upstream says a blob is. Raises RegistryError."""
        remote = self._remote(repository)
        async with remote.request("HEAD", remote.url(f"blobs/{digest}"), digest) as response:
            return response.content_length or 0

    async def download(self, repository: Repository, digest: Digest) -> Download:
        """The download of a blob, begun or joined; the caller is a reader of it. Raises RegistryError."""
        if digest not in self._downloads:
            self._downloads[digest] = asyncio.get_running_loop().create_future()
            self._tasks.create_task(self._fetch(repository, digest), name=f"mirror-{digest[:19]}")
        found = await asyncio.shield(self._downloads[digest])
        found.hold()
        return found

    async def _fetch(self, repository: Repository, digest: Digest) -> None:
        """Fetch a blob; its failure is its readers' to tell, the mirror goes on."""
        started, failure = self._downloads[digest], None
        try:
            await self._fetch_into(repository, digest, started)
        except (ImageError, aiohttp.ClientError, TimeoutError, OSError) as err:
            failure = err
            log.warning("mirroring failed", extra={"digest": digest, "cause": str(err)})
        finally:
            del self._downloads[digest]
            if not started.done():
                started.set_exception(failure or RegistryUnavailable(self._endpoint.url, "the mirror stops"))
            elif started.exception() is None:
                await started.result().end(failure)

    async def _fetch_into(self, repository: Repository, digest: Digest, started: "asyncio.Future[Download]") -> None:
        remote = self._remote(repository)
        async with remote.request("GET", remote.url(f"blobs/{digest}"), digest) as response:
            with self._repositories.blobs.writer(digest.algorithm) as writer:
                download = Download(response.content_length or 0, writer)
                started.set_result(download)
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    await asyncio.to_thread(writer.write, chunk)
                    await download.note(writer.size)
                with self._repositories.linking(digest):
                    await asyncio.to_thread(writer.commit, digest)
                    await asyncio.to_thread(repository.link_blob, digest)
