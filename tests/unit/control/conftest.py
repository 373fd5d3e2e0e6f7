"""Fixtures: real stores (etcd, raftstore), an apiserver in this process, and a client of it."""

import asyncio
import contextlib
import datetime
import ipaddress
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from control.apiserver.main import Options, serve_options
from control.client import Client
from protos.serving import TLS
from raftstore.client import Client as Etcd


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
        *("--heartbeat-interval", "10", "--election-timeout", "60"),
    ]


class Store:
    """A store process on its own data directory, restartable."""

    def __init__(self, kind: str, data: Path) -> None:
        self.kind, self.data = kind, data
        self.client, self.peer = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.client}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.kind == "etcd" and shutil.which("etcd") is None:
            pytest.skip("etcd is not installed (Debian package etcd-server)")
        if self._process is not None and self._process.poll() is None:
            return
        command = store_command(self.kind, self.data, self.client, self.peer)
        with (self.data.parent / f"{self.data.name}.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def stop(self) -> None:
        """SIGKILL: a store must stand that."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def wipe(self) -> None:
        """Delete every key, once the store answers."""
        async with Etcd([self.url]) as etcd:
            await etcd.delete_range(b"\0", b"\0")


class Server:
    """An apiserver in this process."""

    def __init__(
        self, store_url: str, tls: TLS | None = None, kubelet_tls: TLS | None = None, rest_listen: str = ""
    ) -> None:
        self.store_url, self.tls, self.kubelet_tls, self.rest_listen = store_url, tls, kubelet_tls, rest_listen
        self.address = f"127.0.0.1:{free_port()}"
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        ready = asyncio.Event()
        options = Options(
            (self.store_url,),
            self.address,
            tls=self.tls,
            kubelet_tls=self.kubelet_tls,
            rest_listen=self.rest_listen,
        )
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


@pytest.fixture(scope="session")
def stores(workdir: Path) -> Iterator[dict[str, Store]]:
    """One store of each kind for the whole session, started on first use."""
    found = {kind: Store(kind, workdir / kind) for kind in ("etcd", "raftstore")}
    yield found
    for each in found.values():
        each.stop()


@pytest.fixture
async def store(store_kind: str, stores: dict[str, Store]) -> Store:
    """A running store without keys."""
    found = stores[store_kind]
    found.start()
    await found.wipe()
    return found


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


class Authority:
    """A CA that signs certificates for names and groups into a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test-ca")])
        self._certificate = (
            self._builder(name, name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca = directory / "ca.crt"
        self.ca.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    @staticmethod
    def _builder(subject: x509.Name, issuer: x509.Name, key: Any) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(hours=1))
        )

    def issue(self, user: str, *groups: str) -> TLS:
        """A certificate of CN ``user`` and O ``groups``, good for 127.0.0.1 too."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, user)])
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        signed = (
            self._builder(subject, self._certificate.subject, key.public_key())
            .add_extension(names, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        stem = self._directory / user.replace(":", "-")
        cert, private = stem.with_suffix(".crt"), stem.with_suffix(".key")
        cert.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return TLS(cert, private, self.ca)


@pytest.fixture(scope="session")
def authority(workdir: Path) -> Authority:
    return Authority(workdir / "pki")


@pytest.fixture
def make_server() -> type[Server]:
    """The Server class, for tests that need another than the usual one."""
    return Server


@pytest.fixture(name="free_port")
def _free_port() -> int:
    """A port that nobody listens on."""
    return free_port()
