"""Fixtures: real stores (etcd, raftstore), an apiserver in this process, and a client of it."""

import asyncio
import contextlib
import importlib.util
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from control.apiserver.main import Options, serve_options
from control.client import Client


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def workdir() -> Iterator[Path]:
    """A short directory: unix sockets below it must fit."""
    path = Path(tempfile.mkdtemp(prefix="kcp-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def store_command(kind: str, data: Path, client: int, peer: int) -> list[str]:
    program = ["etcd"] if kind == "etcd" else [sys.executable, "-m", "raftstore"]
    return [
        *program,
        "--name",
        "default",
        "--data-dir",
        str(data),
        "--listen-client-urls",
        f"http://127.0.0.1:{client}",
        "--advertise-client-urls",
        f"http://127.0.0.1:{client}",
        "--listen-peer-urls",
        f"http://127.0.0.1:{peer}",
        "--initial-advertise-peer-urls",
        f"http://127.0.0.1:{peer}",
        "--initial-cluster",
        f"default=http://127.0.0.1:{peer}",
    ]


class Store:
    """A store process on its own data directory, restartable."""

    def __init__(self, kind: str, data: Path) -> None:
        self.kind, self.data = kind, data
        self.client, self.peer = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.client}"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        if self.kind == "etcd" and shutil.which("etcd") is None:
            pytest.skip("etcd is not installed (Debian package etcd-server)")
        if self.kind == "raftstore" and importlib.util.find_spec("raftstore.__main__") is None:
            pytest.skip("raftstore has no server yet")
        command = store_command(self.kind, self.data, self.client, self.peer)
        log = (self.data.parent / f"{self.data.name}.log").open("ab")
        self._process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
        log.close()

    async def stop(self, number: int = signal.SIGKILL) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)
            await self._process.wait()


class Server:
    """An apiserver in this process."""

    def __init__(self, store_url: str) -> None:
        self.store_url = store_url
        self.address = f"127.0.0.1:{free_port()}"
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        ready = asyncio.Event()
        options = Options((self.store_url,), self.address)
        self._task = asyncio.create_task(serve_options(options, ready))
        waiting = asyncio.create_task(ready.wait())
        async with asyncio.timeout(20):
            await asyncio.wait([self._task, waiting], return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            await self._task
        waiting.cancel()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task


@pytest.fixture(params=["etcd", "raftstore"])
def store_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def store(store_kind: str, workdir: Path) -> AsyncIterator[Store]:
    found = Store(store_kind, Path(tempfile.mkdtemp(dir=workdir)) / "data")
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
async def server(store: Store) -> AsyncIterator[Server]:
    found = Server(store.url)
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(server.address) as found:
        yield found
