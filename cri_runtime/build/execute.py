"""Builds as a whole: the context unpacked, the Dockerfile read and planned, the plan carried out."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from cri_runtime.build import parser, plan
from cri_runtime.build.cache import BuildCache, CacheMounts
from cri_runtime.build.download import download
from cri_runtime.build.errors import BuildError
from cri_runtime.build.instructions import read
from cri_runtime.build.request import BuildRequest, Download, Report, Tools
from cri_runtime.build.runner import Runner
from cri_runtime.build.stages import Stages
from cri_runtime.images.errors import ImageNotFound, RegistryError
from cri_runtime.images.layer import LayerReader
from cri_runtime.images.manifest import (
    Platform,
)
from cri_runtime.images.reference import normalize
from cri_runtime.images.remote import Session
from cri_runtime.images.store import Image, ImageStore
from cri_runtime.images.tree import Stack, Tree
from cri_runtime.images.unpack import Limits, unpack

Fetch = Callable[[str, Platform], Awaitable[Image]]
"""Brings an image from a registry."""

_CONTEXT_LIMITS = Limits(free_bytes=1 << 42)  # the user's own files; the disk is the bound


class Builder:
    """Builds images into a store."""

    def __init__(self, store: ImageStore, fetch: Fetch, session: Session | None = None) -> None:
        """``session`` is for ADD of URLs; without it nothing is fetched."""
        self._store = store
        self._fetch = fetch
        self._session = session
        self.runner: Runner | None = None
        """Who carries out RUN; None: nobody."""
        self.cache = BuildCache(store.root / "build-cache")
        self.cache_mounts = CacheMounts(store.root / "build-mounts")
        store.root_sources.append(self.cache.digests)

    async def build(self, request: BuildRequest, report: Report = lambda step, status, text: None) -> Image:
        """Build and name an image. Raises BuildError with its line, other ImageErrors, OSError.

        On failure names are as they were; layers of steps that were done stay in the cache.
        """
        names = [str(normalize(tag)) for tag in request.tags]
        async with self._store.holding() as hold, self._opened(request) as context:
            dockerfile = parser.parse(_dockerfile_text(request, context))
            platform = Platform.parse(request.platform) if request.platform else Platform.host()
            arrangement = plan.plan_build(
                read(dockerfile), request.build_args, request.target, platform, dockerfile.escape
            )
            tools = Tools(self._store, self.cache, self.runner, self._base, self._download, self.cache_mounts)
            stages = Stages(tools, request, arrangement, context, hold, report, platform, dockerfile.escape)
            return await stages.finish(names)

    @asynccontextmanager
    async def _opened(self, request: BuildRequest) -> AsyncIterator[Tree]:
        """The context, unpacked for the length of the build."""
        scratch = self._store.blobs.scratch()
        try:
            await asyncio.to_thread(_unpack_context, request.context, scratch)
            with Tree(scratch) as tree:
                yield tree
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)

    async def _base(self, reference: str, platform: Platform, pull: bool) -> Image:
        """The image of a FROM: from the store, else from its registry."""
        if not pull:
            try:
                return self._store.get(reference)
            except ImageNotFound:
                pass
        try:
            return await self._fetch(reference, platform)
        except RegistryError as err:
            raise BuildError(0, f"no such image here, and {err}") from err

    async def _download(self, url: str, checksum: str) -> Download:
        if self._session is None:
            raise BuildError(0, f"{url}: this runtime fetches nothing")
        return await download(self._session, self._store, url, checksum)


def _unpack_context(tar: Path | None, scratch: Path) -> None:
    scratch.mkdir(mode=0o700)
    if tar is not None:
        with tar.open("rb") as file, LayerReader(file) as reader:
            unpack(reader, scratch, limits=_CONTEXT_LIMITS, whiteouts=False)


def _dockerfile_text(request: BuildRequest, context: Tree) -> bytes:
    if request.dockerfile is not None:
        return request.dockerfile
    stack = Stack([context])
    place = stack.resolve(tuple(filter(None, request.dockerfile_path.split("/"))), follow_last=True)
    found = stack.lookup(place)
    if found is None or found.is_dir:
        raise BuildError(0, f'there is no "{request.dockerfile_path}" in the build context; name it with -f')
    with open(found.tree.open(place), "rb") as file:  # noqa: PTH123 (a descriptor)
        return file.read(parser.BYTES_MAX + 1)


__all__ = ["BuildRequest", "Builder", "Fetch"]
