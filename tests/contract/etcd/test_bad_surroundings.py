"""Clients that misbehave and disks that fill up: the process stays, and answers everybody else."""

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.etcd import rpc_pb2 as pb
from protos.serving import open_channel
from raftstore.client import Client, errors

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def connect(server: Any) -> socket.socket:
    host, port = server.address.split(":")
    return socket.create_connection((host, int(port)), timeout=10)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        os.urandom(4096),
        PREFACE,
        PREFACE + b"\xff\xff\xff\x01\x00\x00\x00\x00\x01",
        PREFACE + bytes(9) + b"\x00\x00\x04\x01\x05\x00\x00\x00\x01abcd",
    ],
    ids=["http/1.1", "noise", "preface only", "a frame of 16 MiB", "broken headers"],
)
async def test_malformed_frames_hurt_only_their_connection(data: bytes, knarr_server: Any) -> None:
    with connect(knarr_server) as stranger:
        stranger.sendall(data)
        async with Client([knarr_server.url]) as client:
            await client.put(b"a", b"1")


@pytest.mark.parametrize("method", ["KV/Put", "KV/Txn", "KV/Range", "Lease/LeaseGrant", "Auth/UserAdd", "Nope/Nope"])
async def test_messages_that_are_no_requests_are_refused(method: str, knarr_server: Any) -> None:
    async with open_channel(knarr_server.url) as channel:
        call = channel.unary_unary(f"/etcdserverpb.{method}")
        for junk in (b"\xff\xff\xff\xff", b"\x0a\xff", b"\x0a\x02\xff\xfe"):
            with contextlib.suppress(grpc.aio.AioRpcError):
                await call(junk, timeout=10)
    async with Client([knarr_server.url]) as client:
        await client.put(b"a", b"1")


async def test_a_thousand_idle_connections_are_borne(knarr_server: Any) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(connect(knarr_server)).sendall(PREFACE + bytes(3) + b"\x04" + bytes(5))
        async with Client([knarr_server.url]) as client:
            for _ in range(20):
                await client.put(b"a", b"1")


async def test_watchers_that_vanish_are_forgotten(start_knarr: Any) -> None:
    server = start_knarr()
    for _ in range(5):
        with connect(server) as half:  # half a request, then gone
            half.sendall(PREFACE + bytes(3) + b"\x04" + bytes(5) + b"\x00\x10\x00\x01\x04\x00\x00\x00\x01abc")
    channels = [open_channel(server.url) for _ in range(20)]
    for channel in channels:
        call = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )()
        await call.write(pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"a")))
        assert (await call.read()).created
        await channel.close()
    async with Client([server.url]) as client:
        await client.put(b"a", b"1")


async def test_a_data_directory_of_etcd_is_refused(tmp_path: Path, start_knarr: Any) -> None:
    (tmp_path / "data/member/snap").mkdir(parents=True)
    with pytest.raises(AssertionError, match="ended with 1"):
        start_knarr()
    assert "belongs to etcd" in (tmp_path / "knarr.log").read_text()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "data"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "knarr-test", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.root
async def test_a_full_disk_stops_writes_until_there_is_room(small_disk: Path, start_knarr: Any) -> None:
    server = start_knarr()
    ballast = small_disk / "ballast"
    async with Client([server.url], timeout_s=2) as client:
        written = (await client.put(b"first", b"1")).header.revision
        with ballast.open("wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 20))
                file.flush()
        with pytest.raises((errors.RequestTimeout, errors.NoSpace)):
            for number in range(100):
                written = (await client.put(b"k%d" % number, bytes(1 << 20))).header.revision
        found = await client.range(b"k", b"l", count_only=True)
        assert found.header.revision == written
        assert (await client.range(b"first")).kvs[0].value == b"1"
        ballast.unlink()
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(errors.RequestTimeout):
                    await client.put(b"again", b"1")
                    break
    server.kill()
    server.start()
    async with Client([server.url]) as client:
        assert (await client.range(b"again")).count == 1
        assert (await client.range(b"k", b"l", count_only=True)).count >= found.count


@pytest.mark.root
def test_a_read_only_disk_is_refused(small_disk: Path, start_knarr: Any, tmp_path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(AssertionError, match="ended with 1"):
        start_knarr()
    assert "Read-only file system" in (tmp_path / "knarr.log").read_text()
