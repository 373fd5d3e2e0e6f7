"""The process: flags, TLS, bad surroundings; each refusal one line and exit code 1."""

import asyncio
import datetime
import ipaddress
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.serving import TLS
from raftstore.client import Client, errors


def refused(directory: Path, *flags: str) -> str:
    """Run with flags that cannot work; the one line it says."""
    command = [sys.executable, "-m", "raftstore", "--data-dir", str(directory / "d"), "--log-level", "error", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr
    assert len(lines) == 1
    return lines[0]


def test_sigterm_ends_it_with_exit_code_0_and_a_lock_is_let_go(start_knarr: Any) -> None:
    server = start_knarr()
    assert server.terminate() == 0
    server.start()
    assert server.terminate() == 0


def test_a_data_directory_in_use_is_refused(start_knarr: Any, tmp_path: Path) -> None:
    start_knarr()
    said = refused(tmp_path, "--data-dir", str(tmp_path / "data"), "--listen-client-urls", "http://127.0.0.1:0")
    assert "is in use by another process" in said


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = refused(tmp_path, "--listen-client-urls", f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert "cannot listen on" in said
    assert not (tmp_path / "d").exists()


def test_an_unusable_data_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = refused(tmp_path, "--data-dir", str(tmp_path / "file"), "--listen-client-urls", "http://127.0.0.1:0")
    assert "cannot use --data-dir" in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--listen-client-urls", "127.0.0.1:1"], "--listen-client-urls"),
        (["--listen-client-urls", "https://127.0.0.1:0"], "--cert-file"),
        (["--cert-file", "/nope"], "go together"),
        (["--cert-file", "/nope", "--key-file", "/nope", "--trusted-ca-file", "/nope"], "/nope"),
        (["--initial-cluster", "other=http://127.0.0.1:1"], "does not list this member"),
        (["--initial-cluster", "default"], "is not NAME=URL"),
        (["--election-timeout", "200"], "--election-timeout"),
    ],
)
def test_flags_that_cannot_work_are_named(flags: list[str], said: str, tmp_path: Path) -> None:
    assert said in refused(tmp_path, *flags)
    assert not (tmp_path / "d").exists()


def test_a_damaged_log_is_refused(start_knarr: Any, tmp_path: Path) -> None:
    server = start_knarr()

    async def fill() -> None:
        async with Client([server.url]) as client:
            for _ in range(10):
                await client.put(b"a", bytes(100))

    asyncio.run(fill())
    server.kill()
    segment = next((tmp_path / "data/member/wal").iterdir())
    data = bytearray(segment.read_bytes())
    data[400] ^= 1
    segment.write_bytes(data)
    said = refused(tmp_path, "--data-dir", str(tmp_path / "data"), "--listen-client-urls", "http://127.0.0.1:0")
    assert "is damaged at byte" in said


def test_a_database_without_its_log_is_refused(start_knarr: Any, tmp_path: Path) -> None:
    server = start_knarr()

    async def fill() -> None:
        async with Client([server.url]) as client:
            revision = (await client.put(b"a", b"1")).header.revision
            await client.compact(revision, physical=True)

    asyncio.run(fill())
    server.kill()
    next((tmp_path / "data/member/wal").iterdir()).unlink()
    said = refused(tmp_path, "--data-dir", str(tmp_path / "data"), "--listen-client-urls", "http://127.0.0.1:0")
    assert "restore both from one backup" in said


async def test_health_and_reflection(knarr_server: Any) -> None:
    async with grpc.aio.insecure_channel(knarr_server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "etcdserverpb.KV", "etcdserverpb.Watch"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="other"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


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


async def test_mutual_tls_lets_in_only_clients_of_its_authority(start_knarr_tls: Any, tmp_path: Path) -> None:
    authority, url = start_knarr_tls("--client-cert-auth")
    async with Client([url], authority.issue("client")) as client:
        await client.put(b"a", b"1")
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other").issue("stranger")
    half = TLS(stranger.cert, stranger.key, authority.file)
    async with Client([url], half, timeout_s=1) as client:
        with pytest.raises(errors.Unavailable):
            await client.put(b"a", b"1")


async def test_without_client_cert_auth_only_the_server_shows_a_certificate(start_knarr_tls: Any) -> None:
    authority, url = start_knarr_tls()
    credentials = grpc.ssl_channel_credentials(authority.file.read_bytes())
    async with grpc.aio.secure_channel(url.removeprefix("https://"), credentials) as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())


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
