"""The process: flags, TLS, bad surroundings; each refusal one line and exit code 1."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
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


async def test_mutual_tls_lets_in_only_clients_of_its_authority(start_knarr_tls: Any, tmp_path: Path) -> None:
    authority, url = start_knarr_tls("--client-cert-auth")
    async with Client([url], authority.issue("client")) as client:
        await client.put(b"a", b"1")
    (tmp_path / "other").mkdir()
    stranger = type(authority)(tmp_path / "other").issue("stranger")
    half = TLS(stranger.cert, stranger.key, authority.file)
    async with Client([url], half, timeout_s=1) as client:
        with pytest.raises(errors.Unavailable):
            await client.put(b"a", b"1")


async def test_without_client_cert_auth_only_the_server_shows_a_certificate(start_knarr_tls: Any) -> None:
    authority, url = start_knarr_tls()
    credentials = grpc.ssl_channel_credentials(authority.file.read_bytes())
    async with grpc.aio.secure_channel(url.removeprefix("https://"), credentials) as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
