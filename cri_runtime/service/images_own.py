"""``knarr.images.v1.Images``: docker's verbs on the image store. Protocol only."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path

import grpc

from cri_runtime.build.execute import Builder, BuildRequest
from cri_runtime.build.instructions import NETWORKS
from cri_runtime.images import archive
from cri_runtime.images.errors import ImageInputError, InvalidReference
from cri_runtime.images.export import export
from cri_runtime.images.host.pack import from_host
from cri_runtime.images.hosts import Auth
from cri_runtime.images.manifest import Platform
from cri_runtime.images.pull import Puller
from cri_runtime.images.push import Pusher
from cri_runtime.images.reference import parse
from cri_runtime.images.store import Image, ImageStore
from cri_runtime.images.transfer import Progress
from cri_runtime.service.image_errors import answers
from cri_runtime.service.progress import Offer, stream_progress
from protos.knarr import images_pb2 as pb
from protos.knarr import images_pb2_grpc

_CHUNK_BYTES = 1 << 20


class Images(images_pb2_grpc.ImagesServicer):
    """See images.proto for each rpc."""

    def __init__(self, store: ImageStore, puller: Puller, pusher: Pusher, builder: Builder) -> None:
        self._store = store
        self._puller = puller
        self._pusher = pusher
        self._builder = builder

    @answers
    async def List(self, request: pb.ListRequest, context: grpc.aio.ServicerContext) -> pb.ListResponse:
        """Images, newest first; with a reference those of that repository, tag or digest."""
        images = [to_message(image) for image in self._store.images()]
        if request.reference:
            images = [narrowed for image in images if (narrowed := _narrow(image, request.reference))]
        return pb.ListResponse(images=images)

    @answers
    async def Inspect(self, request: pb.InspectRequest, context: grpc.aio.ServicerContext) -> pb.InspectResponse:
        """Config and manifest as they are stored."""
        image = self._store.get(request.image)
        config, manifest = self._store.blobs.read(image.id), self._store.blobs.read(image.manifest.digest)
        return pb.InspectResponse(image=to_message(image), config=config, manifest=manifest)

    @answers
    async def History(self, request: pb.HistoryRequest, context: grpc.aio.ServicerContext) -> pb.HistoryResponse:
        """What made each layer, newest first."""
        image = self._store.get(request.image)
        entries = list(_history(self._store, image))
        if entries:
            entries[-1].id = image.id
        return pb.HistoryResponse(entries=reversed(entries))

    @answers
    async def Tag(self, request: pb.TagRequest, context: grpc.aio.ServicerContext) -> pb.TagResponse:
        """One more name."""
        await self._store.tag(request.source, request.target)
        return pb.TagResponse()

    @answers
    async def Remove(self, request: pb.RemoveRequest, context: grpc.aio.ServicerContext) -> pb.RemoveResponse:
        """A name, and the image with its last one."""
        removal = await self._store.remove(request.image, request.force)
        return pb.RemoveResponse(untagged=removal.untagged, deleted=removal.deleted)

    @answers
    async def Prune(self, request: pb.PruneRequest, context: grpc.aio.ServicerContext) -> pb.PruneResponse:
        """Nameless or unused images, the build cache, and what nothing refers to."""
        await asyncio.to_thread(self._builder.cache.clear)
        mounts = await asyncio.to_thread(self._builder.cache_mounts.clear)
        removal = await self._store.prune(request.all)
        freed = removal.freed_bytes + mounts
        return pb.PruneResponse(deleted=[*removal.untagged, *removal.deleted], freed_bytes=freed)

    @answers
    async def Pull(self, request: pb.PullRequest, context: grpc.aio.ServicerContext) -> None:
        """Progress per layer; the last message has the id."""
        platform = Platform.parse(request.platform) if request.platform else None

        async def operation(offer: Offer) -> str:
            image = await self._puller.pull(request.image, platform, _auth(request), lambda p: offer(_progress(p)))
            return image.id

        await stream_progress(context, operation)

    @answers
    async def Push(self, request: pb.PushRequest, context: grpc.aio.ServicerContext) -> None:
        """Progress per layer; the last message has the manifest's digest."""

        async def operation(offer: Offer) -> str:
            return await self._pusher.push(request.image, request.target, _auth(request), lambda p: offer(_progress(p)))

        await stream_progress(context, operation)

    @answers
    async def Build(self, requests: AsyncIterator[pb.BuildRequest], context: grpc.aio.ServicerContext) -> None:
        """A line per step; the last message has the id."""
        first = await anext(aiter(requests), pb.BuildRequest())
        if first.WhichOneof("message") != "start":
            raise ImageInputError("the first message of Build is start")
        scratch = self._store.blobs.scratch()
        try:
            await _spool(scratch, (message.context async for message in requests))
            request = _build_request(first.start, scratch)

            async def operation(offer: Offer) -> str:
                image = await self._builder.build(
                    request, lambda step, status, text: offer(pb.Progress(id=step, status=status, text=text))
                )
                return image.id

            await stream_progress(context, operation)
        finally:
            scratch.unlink(missing_ok=True)

    @answers
    async def FromHost(self, request: pb.FromHostRequest, context: grpc.aio.ServicerContext) -> None:
        """An image of programs of this host; the last message has the id."""

        async def operation(offer: Offer) -> str:
            image = await from_host(
                self._store,
                request.programs,
                request.tag,
                request.include,
                request.path,
                lambda text: offer(pb.Progress(status="packing", text=text)),
            )
            return image.id

        await stream_progress(context, operation)

    @answers
    async def Save(self, request: pb.SaveRequest, context: grpc.aio.ServicerContext) -> None:
        """The archive, in chunks."""
        if not request.images:
            raise ImageInputError("name at least one image to save")
        chosen = archive.choose(self._store, request.images)
        digests = [layer.descriptor.digest for named in chosen for layer in named.image.layers]
        async with self._store.holding(digests):
            chunks = archive.save(self._store, chosen, request.format == pb.SaveRequest.DOCKER_ARCHIVE)
            while data := await asyncio.to_thread(_joined, chunks):
                await context.write(pb.Chunk(data=data))

    @answers
    async def Export(self, request: pb.ExportRequest, context: grpc.aio.ServicerContext) -> None:
        """The merged root file system, in chunks."""
        image = self._store.get(request.image)
        async with self._store.holding(layer.chain_id for layer in image.layers):
            chunks = export(await self._store.lower_dirs(image.id))
            while data := await asyncio.to_thread(_joined, chunks):
                await context.write(pb.Chunk(data=data))

    @answers
    async def Load(self, requests: AsyncIterator[pb.Chunk], context: grpc.aio.ServicerContext) -> pb.LoadResponse:
        """Names of the archive's images."""
        scratch = self._store.blobs.scratch()
        try:
            await _spool(scratch, (message.data async for message in requests))
            return pb.LoadResponse(images=await archive.load(self._store, scratch))
        finally:
            scratch.unlink(missing_ok=True)


async def _spool(path: Path, chunks: AsyncIterator[bytes]) -> None:
    """Write a client's stream to a file."""
    with path.open("xb") as file:
        async for chunk in chunks:
            await asyncio.to_thread(file.write, chunk)


def _joined(chunks: Iterator[bytes]) -> bytes:
    """The next chunks, together about a megabyte; empty at the end."""
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) >= _CHUNK_BYTES:
            break
    return bytes(data)


def _build_request(start: pb.BuildStart, context: Path) -> BuildRequest:
    return BuildRequest(
        dockerfile=start.dockerfile or None,
        context=context if context.stat().st_size else None,
        dockerfile_path=start.dockerfile_path or "Dockerfile",
        tags=[*start.tags],
        build_args=dict(start.build_args),
        labels=dict(start.labels),
        target=start.target,
        platform=start.platform,
        use_cache=not start.no_cache,
        pull=start.pull,
        secrets=dict(start.secrets),
        network=_network(start.network),
    )


def _network(text: str) -> str:
    if text not in ("", *NETWORKS):
        raise ImageInputError(f'a build\'s network is {", ".join(NETWORKS)}, not "{text}"')
    return text or "default"


def to_message(image: Image) -> pb.Image:
    """Our form of an image."""
    return pb.Image(
        id=image.id,
        repo_tags=image.repo_tags,
        repo_digests=image.repo_digests,
        created_s=_seconds(image.config.created),
        size_bytes=image.size_bytes,
    )


def _narrow(image: pb.Image, text: str) -> pb.Image | None:
    """The image with only those names that ``text`` means; None when there are none."""
    try:
        wanted = parse(text)
    except InvalidReference:
        return None
    exact = wanted.tag or wanted.digest

    def means(name: str) -> bool:
        return name == str(wanted) if exact else parse(name).name == wanted.name

    tags, digests = [*filter(means, image.repo_tags)], [*filter(means, image.repo_digests)]
    if not tags and not digests:
        return None
    return pb.Image(
        id=image.id, repo_tags=tags, repo_digests=digests, created_s=image.created_s, size_bytes=image.size_bytes
    )


def _history(store: ImageStore, image: Image) -> Iterator[pb.HistoryEntry]:
    """Oldest first. Layers that the history does not account for come last, without a word."""
    sizes = iter([(s.size_bytes if s else 0) for s in (store.snapshots.get(layer.chain_id) for layer in image.layers)])
    for entry in image.config.history:
        yield pb.HistoryEntry(
            created_s=_seconds(entry.created),
            created_by=entry.created_by,
            size_bytes=0 if entry.empty_layer else next(sizes, 0),
            comment=entry.comment,
            empty_layer=entry.empty_layer,
        )
    for size in sizes:
        yield pb.HistoryEntry(size_bytes=size)


def _seconds(created: str) -> int:
    try:
        return int(datetime.fromisoformat(created).timestamp())
    except ValueError:
        return 0


def _progress(progress: Progress) -> pb.Progress:
    return pb.Progress(
        id=progress.id,
        status=progress.status,
        current_bytes=progress.current_bytes,
        total_bytes=progress.total_bytes,
    )


def _auth(request: pb.PullRequest | pb.PushRequest) -> Auth | None:
    if not request.HasField("auth"):
        return None
    auth = request.auth
    return Auth(auth.username, auth.password, auth.registry_token, auth.identity_token)
