"""The image half of a runtime on a socket of its own, a registry, and other people's tools."""

import asyncio
import io
import shutil
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from cri_runtime.registry.serve import running as running_registry
from cri_runtime.service.images import IMAGE_SERVICES, ImageRoom, add_image_services, open_images
from protos.cri.runtime_pb2_grpc import ImageServiceStub
from protos.knarr.images_pb2_grpc import ImagesStub
from protos.serving import new_server, open_channel, running


@dataclass
class Done:
    """A program that has ended."""

    code: int
    out: str
    err: str
    raw: bytes = b""
    """What ``out`` is the text of."""


async def run(*command: str | Path, stdin: bytes = b"", cwd: Path | None = None) -> Done:
    """Run a program to its end."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
    )
    out, err = await process.communicate(stdin)
    return Done(process.returncode or 0, out.decode("utf-8", "replace"), err.decode(), out)


@dataclass
class Runtime:
    """A served image room."""

    room: ImageRoom
    endpoint: str
    channel: grpc.aio.Channel

    @property
    def cri(self) -> ImageServiceStub:
        """CRI's image service."""
        return ImageServiceStub(self.channel)

    @property
    def images(self) -> ImagesStub:
        """Our image service."""
        return ImagesStub(self.channel)

    async def ctl(self, *words: str | Path, stdin: bytes = b"", cwd: Path | None = None) -> Done:
        """``ctl image`` on this runtime."""
        return await run(sys.executable, "-m", "ctl", "-r", self.endpoint, "image", *words, stdin=stdin, cwd=cwd)


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="knarr-") as path:
        yield Path(path)


@pytest.fixture
async def runtime(short_dir: Path, tmp_path: Path) -> AsyncIterator[Runtime]:
    """See Runtime."""
    endpoint = f"unix://{short_dir}/cri.sock"
    server = new_server()
    async with open_images(tmp_path / "images") as room:
        add_image_services(server, room)
        async with running(server, [endpoint], services=IMAGE_SERVICES), open_channel(endpoint) as channel:
            yield Runtime(room, endpoint, channel)


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[str]:
    """A registry's address."""
    async with running_registry(tmp_path / "registry", "127.0.0.1:0") as address:
        yield address


@pytest.fixture
def tool() -> Callable[..., Awaitable[Done]]:
    """``await tool("skopeo", ...)``; skips when it is not installed, fails when it fails."""

    async def call(program: str, *words: str | Path) -> Done:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
        done = await run(program, *words)
        assert done.code == 0, done.err
        return done

    return call


@pytest.fixture
def build(runtime: Runtime, tmp_path: Path) -> Callable[..., Awaitable[str]]:
    """``await build(tag, dockerfile, {path: content})`` builds over the socket; returns the id."""
    from protos.knarr import images_pb2 as pb

    async def call(tag: str, dockerfile: str, files: dict[str, bytes] | None = None) -> str:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, data in (files or {}).items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))

        async def requests() -> AsyncIterator[pb.BuildRequest]:
            yield pb.BuildRequest(start=pb.BuildStart(dockerfile=dockerfile.encode(), tags=[tag]))
            yield pb.BuildRequest(context=buffer.getvalue())

        messages = [message async for message in runtime.images.Build(requests())]
        return str(messages[-1].result)

    return call
