"""``runtime.v1.ImageService``: CRI's view of the image store. Protocol only."""

import base64
import binascii
import json
import time

import grpc

from cri_runtime.images.errors import ImageInputError, ImageNotFound
from cri_runtime.images.hosts import Auth
from cri_runtime.images.pull import Puller
from cri_runtime.images.store import Image, ImageStore
from cri_runtime.service.image_errors import answers_cri
from protos.cri import runtime_pb2 as pb
from protos.cri import runtime_pb2_grpc

_STREAM_BATCH = 100


class ImageService(runtime_pb2_grpc.ImageServiceServicer):
    """See runtime.proto for each rpc; ``image_ref`` is always the image's id."""

    def __init__(self, store: ImageStore, puller: Puller) -> None:
        self._store = store
        self._puller = puller

    @answers_cri
    async def ListImages(
        self, request: pb.ListImagesRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListImagesResponse:
        """All images, or the one that the filter names."""
        return pb.ListImagesResponse(images=self._selected(request.filter))

    @answers_cri
    async def StreamImages(self, request: pb.StreamImagesRequest, context: grpc.aio.ServicerContext) -> None:
        """The same, in batches."""
        images = self._selected(request.filter)
        for start in range(0, len(images), _STREAM_BATCH):
            await context.write(pb.StreamImagesResponse(images=images[start : start + _STREAM_BATCH]))

    def _selected(self, wanted: pb.ImageFilter) -> list[pb.Image]:
        if not wanted.image.image:
            return [to_message(image) for image in self._store.images()]
        found = self._maybe(wanted.image.image)
        return [to_message(found)] if found else []

    def _maybe(self, reference: str) -> Image | None:
        try:
            return self._store.get(reference)
        except ImageNotFound:
            return None

    @answers_cri
    async def ImageStatus(
        self, request: pb.ImageStatusRequest, context: grpc.aio.ServicerContext
    ) -> pb.ImageStatusResponse:
        """One image by any of its names; success without image when it is not here."""
        image = self._maybe(_named(request.image))
        if image is None:
            return pb.ImageStatusResponse()
        info = {"info": _details(self._store, image)} if request.verbose else {}
        return pb.ImageStatusResponse(image=to_message(image), info=info)

    @answers_cri
    async def PullImage(self, request: pb.PullImageRequest, context: grpc.aio.ServicerContext) -> pb.PullImageResponse:
        """Pull; returns the image's id."""
        image = await self._puller.pull(_named(request.image), auth=_auth(request.auth))
        return pb.PullImageResponse(image_ref=image.id)

    @answers_cri
    async def RemoveImage(
        self, request: pb.RemoveImageRequest, context: grpc.aio.ServicerContext
    ) -> pb.RemoveImageResponse:
        """Remove the image with all its names; success when it is not here."""
        image = self._maybe(_named(request.image))
        if image is not None:
            await self._store.remove_image(image)
        return pb.RemoveImageResponse()

    @answers_cri
    async def ImageFsInfo(
        self, request: pb.ImageFsInfoRequest, context: grpc.aio.ServicerContext
    ) -> pb.ImageFsInfoResponse:
        """What the store takes of its file system."""
        usage = self._store.usage()
        filesystem = pb.FilesystemUsage(
            timestamp=time.time_ns(),
            fs_id=pb.FilesystemIdentifier(mountpoint=str(self._store.root)),
            used_bytes=pb.UInt64Value(value=usage.used_bytes),
            inodes_used=pb.UInt64Value(value=usage.inodes),
        )
        return pb.ImageFsInfoResponse(image_filesystems=[filesystem], container_filesystems=[filesystem])


def to_message(image: Image) -> pb.Image:
    """CRI's form of an image. Its user is a number or a name, never both."""
    user = image.config.user.partition(":")[0]
    message = pb.Image(
        id=image.id, repo_tags=image.repo_tags, repo_digests=image.repo_digests, size=max(image.size_bytes, 1)
    )
    if user.isdecimal():
        message.uid.value = int(user)
    else:
        message.username = user
    return message


def _named(spec: pb.ImageSpec) -> str:
    if not spec.image:
        raise ImageInputError("image.image is empty: give a name or an id")
    return spec.image


def _details(store: ImageStore, image: Image) -> str:
    chain_id = image.layers[-1].chain_id if image.layers else ""
    return json.dumps({"chainID": chain_id, "imageSpec": json.loads(store.blobs.read(image.id))})


def _auth(config: pb.AuthConfig) -> Auth | None:
    """The request's login; ``auth`` is base64 of ``user:password``. None: the runtime's own."""
    username, password = config.username, config.password
    if config.auth and not username:
        try:
            username, _, password = base64.b64decode(config.auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as err:
            raise ImageInputError("auth.auth is not base64 of user:password") from err
    auth = Auth(username, password.rstrip("\0"), config.registry_token, config.identity_token)
    return auth if auth else None
