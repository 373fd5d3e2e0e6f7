"""The image services of the CRI socket: what they share, how they start, how they join a server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from cri_runtime.build.execute import Builder
from cri_runtime.images.hosts import load_registries
from cri_runtime.images.manifest import Platform
from cri_runtime.images.pull import Puller
from cri_runtime.images.push import Pusher
from cri_runtime.images.remote import Session
from cri_runtime.images.store import Image, ImageStore
from cri_runtime.service.images_cri import ImageService
from cri_runtime.service.images_own import Images
from protos.cri import runtime_pb2_grpc
from protos.knarr import images_pb2_grpc

IMAGE_SERVICES = ("runtime.v1.ImageService", "knarr.images.v1.Images")
"""For health and reflection."""


@dataclass(frozen=True)
class ImageRoom:
    """The store with all that works on it."""

    store: ImageStore
    puller: Puller
    pusher: Pusher
    builder: Builder


@asynccontextmanager
async def open_images(root: Path, registries: Path | None = None) -> AsyncIterator[ImageRoom]:
    """The image half of a runtime, its store below ``root``, for the length of the block.

    ``registries`` is the ``--registries`` file. Raises RegistriesFileError, OSError, ValueError.
    """
    hosts = load_registries(registries)
    store = await asyncio.to_thread(ImageStore, root)
    async with Session() as session:
        puller = Puller(store, hosts, session)

        async def fetch(reference: str, platform: Platform) -> Image:
            return await puller.pull(reference, platform)

        yield ImageRoom(store, puller, Pusher(store, hosts, session), Builder(store, fetch, session))


def add_image_services(server: grpc.aio.Server, room: ImageRoom) -> None:
    """Add ``runtime.v1.ImageService`` and ``knarr.images.v1.Images`` to a server that is not started yet."""
    own = Images(room.store, room.puller, room.pusher, room.builder)
    runtime_pb2_grpc.add_ImageServiceServicer_to_server(ImageService(room.store, room.puller), server)
    images_pb2_grpc.add_ImagesServicer_to_server(own, server)
