"""A network namespace of the test's own, a proxy process in it, and sockets there for the test to use."""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.knarr import proxy_pb2, proxy_pb2_grpc
from protos.serving import open_channel

CLONE_NEWNET = 0x40000000
PODS = "10.244.0.0/24"
VIP = "10.96.0.10"


class Namespace:
    """A fresh network namespace, entered by one thread: sockets and processes that it makes are born there. The
    namespace ends with the thread and what it made."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, initializer=self._enter)
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "route", "add", "local", PODS, "dev", "lo")

    @staticmethod
    def _enter() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call in the namespace."""
        return self._thread.submit(function, *args, **kwargs).result()

    def run(self, *command: str) -> str:
        """Run a program in the namespace; its output."""
        done = self.call(subprocess.run, command, check=True, capture_output=True, text=True)
        return str(done.stdout)

    def new_socket(self) -> socket.socket:
        """A non-blocking TCP socket of the namespace."""
        sock = self.call(socket.socket)
        sock.setblocking(False)
        return sock

    def datagram_socket(self, address: str = "", port: int = 0) -> socket.socket:
        """A UDP socket of the namespace, bound when an address is given; operations time out after 10 s."""
        sock: socket.socket = self.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
        sock.settimeout(10)
        if address:
            sock.bind((address, port))
        return sock

    def listen(self, address: str, port: int) -> socket.socket:
        """A listening one."""
        sock = self.new_socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(1024)
        return sock

    async def connect(
        self, address: str, port: int, source: str = ""
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connected stream."""
        sock = self.new_socket()
        if source:
            sock.bind((source, 0))
        try:
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
        except OSError:
            sock.close()
            raise
        return await asyncio.open_connection(sock=sock, limit=1 << 20)

    async def ask(self, address: str, port: int, request: bytes = b"", source: str = "") -> bytes:
        """Send ``request``, end our half, and return all that is answered."""
        reader, writer = await self.connect(address, port, source)
        try:
            writer.write(request)
            try:
                writer.write_eof()
            except OSError as err:  # ENOTCONN: it was reset before we said anything
                raise ConnectionResetError("reset") from err
            return await reader.read()
        finally:
            writer.close()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()


@pytest.fixture
def ns() -> Iterator[Namespace]:
    """A network namespace with lo up, and every address of 10.244.0.0/24 local, for pods."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes a network namespace")
    namespace = Namespace()
    yield namespace
    namespace.close()


Serve = Callable[..., Awaitable[None]]


@pytest.fixture
async def pods(ns: Namespace) -> AsyncIterator[Callable[..., Awaitable[asyncio.Server]]]:
    """Start a backend: ``await pods("10.244.0.2", handler)``; the handler gets a reader and a writer."""
    servers = []

    async def start(address: str, handler: Callable[..., Awaitable[None]], port: int = 8080) -> asyncio.Server:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                await handler(reader, writer)
            writer.close()

        server = await asyncio.start_server(handle, sock=ns.listen(address, port), limit=1 << 20)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()


class ProxyProcess:
    """``python -m proxy`` in a namespace: with ``--services FILE`` unless the flags name a ``--server``."""

    def __init__(self, ns: Namespace, folder: Path, *flags: str) -> None:
        self.folder = folder
        self.file = folder / "services.yaml"
        self.window = f"unix://{folder}/proxy.sock"
        source = () if "--server" in flags else ("--services", str(self.file))
        command = (sys.executable, "-m", "proxy", *source, "--listen", self.window, *flags)
        self.log = (folder / "log").open("ab")
        self.process: subprocess.Popen[bytes] = ns.call(subprocess.Popen, command, stderr=self.log)
        self.channel = open_channel(self.window)

    async def ready(self) -> None:
        """Wait for health."""
        stub = health_pb2_grpc.HealthStub(self.channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=20)
        try:
            async for answer in watch:
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    watch.cancel()
                    return
        except grpc.aio.AioRpcError as err:
            raise AssertionError(f"the proxy is not ready: {err.details()}; it said: {self.output()}") from err

    async def listeners(self) -> list[proxy_pb2.Listener]:
        """ListListeners."""
        stub = proxy_pb2_grpc.ProxyStub(self.channel)
        return list((await stub.ListListeners(proxy_pb2.ListListenersRequest(), timeout=10)).listeners)

    def terminate(self) -> None:
        """SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    async def wait(self) -> int:
        """Its exit code."""
        return await asyncio.to_thread(self.process.wait, 30)

    def output(self) -> str:
        """What it logged."""
        return (self.folder / "log").read_text()

    async def aclose(self) -> None:
        """Stop it, if it still runs."""
        await self.channel.close()
        if self.process.poll() is None:
            self.process.terminate()
            await self.wait()
        self.log.close()


@pytest.fixture
async def start_proxy(ns: Namespace) -> AsyncIterator[Callable[..., Awaitable[ProxyProcess]]]:
    """Start a proxy on these objects: ``await start_proxy(service(...), slices(...), flags=[...])``."""
    with tempfile.TemporaryDirectory(prefix="knarr-proxy-") as folder, contextlib.ExitStack():
        started: list[ProxyProcess] = []

        async def start(*objects: dict[str, Any], flags: tuple[str, ...] = (), wait: bool = True) -> ProxyProcess:
            own = Path(folder) / str(len(started))
            own.mkdir()
            (own / "services.yaml").write_text(yaml.safe_dump_all(objects))
            proxy = ProxyProcess(ns, own, "--drain-seconds", "1", *flags)
            started.append(proxy)
            if wait:
                await proxy.ready()
            return proxy

        yield start
        for proxy in started:
            await proxy.aclose()


def make_service(name: str = "web", **spec: Any) -> dict[str, Any]:
    """A Service manifest on VIP:80 to port 8080."""
    defaults = {"clusterIP": VIP, "ports": [{"port": 80, "targetPort": 8080}]}
    annotations = spec.pop("annotations", {})
    status = spec.pop("status", {})
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {**defaults, **spec},
        "status": status,
    }


def make_slice(*addresses: str, name: str = "web", port: int = 8080, **conditions: bool) -> dict[str, Any]:
    """The EndpointSlice of ``addresses``."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": conditions} for address in addresses],
        "ports": [{"port": port}],
    }


@pytest.fixture
def service() -> Callable[..., dict[str, Any]]:
    """See make_service."""
    return make_service


@pytest.fixture
def slices() -> Callable[..., dict[str, Any]]:
    """See make_slice."""
    return make_slice


@pytest.fixture
def eventually() -> Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]:
    """Wait until a condition holds; fail after 20 s."""

    async def wait(condition: Callable[[], Awaitable[bool]]) -> None:
        deadline = time.monotonic() + 20
        while not await condition():
            assert time.monotonic() < deadline, "it did not come true"
            await asyncio.sleep(0.02)

    return wait
