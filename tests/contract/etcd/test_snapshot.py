"""Snapshots: saved by etcdctl and by ctl, restored, and clients of the old store notice."""

import hashlib
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from raftstore import snapshot
from raftstore.client import Client, errors
from raftstore.config import Config
from raftstore.errors import StorageError


def ctl(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ctl", *words], capture_output=True, text=True, timeout=30)


async def fill(url: str) -> int:
    """Some history; returns the revision."""
    async with Client([url]) as client:
        lease = (await client.lease_grant(1000, id=77)).ID
        for number in range(200):
            await client.put(b"k%03d" % (number % 100), b"v%d" % number, lease=lease if number == 199 else 0)
        return (await client.delete_range(b"k000")).header.revision


def test_etcdctl_saves_it(any_etcdctl: str, start_knarr: Any, tmp_path: Path) -> None:
    server = start_knarr()
    file = tmp_path / "snapshot"
    command = [any_etcdctl, "--endpoints", server.address, "snapshot", "save", str(file)]
    done = subprocess.run(command, env={"ETCDCTL_API": "3"}, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    data = file.read_bytes()
    assert len(data) % 512 == 32
    assert hashlib.sha256(data[:-32]).digest() == data[-32:]
    assert snapshot.database_bytes(file) == len(data) - 32


async def test_a_restored_store_has_the_pairs_at_a_later_revision(start_knarr: Any, tmp_path: Path) -> None:
    server = start_knarr()
    before = await fill(server.url)
    file = tmp_path / "snapshot"
    saved = ctl("--endpoints", server.url, "store", "snapshot", "save", str(file))
    assert saved.returncode == 0, saved.stderr
    shown = ctl("store", "snapshot", "status", str(file))
    assert str(before) in shown.stdout.split(), shown.stderr
    server.kill()
    (tmp_path / "data").rename(tmp_path / "old")
    restored = ctl(
        "store", "snapshot", "restore", str(file), "--data-dir", str(tmp_path / "data"), "--bump-revision", "1000"
    )
    assert restored.returncode == 0, restored.stderr
    assert f"at revision {before + 1000}" in restored.stdout
    server.start()
    async with Client([server.url]) as client:
        found = await client.range(b"k", b"l")
        assert (found.count, found.header.revision) == (99, before + 1000)
        assert found.kvs[0].value == b"v101"
        assert (await client.lease_time_to_live(77, keys=True)).keys == [b"k099"]
        with pytest.raises(errors.Compacted):
            await client.range(b"k001", revision=before)
        with pytest.raises(errors.Compacted):
            async with aclosing(client.watch(b"k", b"l", start_revision=before + 1)) as responses:
                async for _ in responses:
                    pass
        put = await client.put(b"new", b"1")
        assert put.header.revision == before + 1001
    server.kill()
    server.start()
    async with Client([server.url]) as client:
        assert (await client.range(b"new")).kvs[0].mod_revision == before + 1001


async def test_what_is_no_snapshot_is_refused(start_knarr: Any, tmp_path: Path) -> None:
    server = start_knarr()
    file = tmp_path / "snapshot"
    async with Client([server.url]) as client:
        file.write_bytes(b"".join([piece async for piece in client.snapshot()]))
    whole = file.read_bytes()
    target = Config(data_dir=tmp_path / "new")
    damaged = bytearray(whole)
    damaged[5000] ^= 1
    bbolt = bytearray(whole)
    bbolt[16:20] = (0xED0CDAED).to_bytes(4, "little")
    for data, said in (
        (bytes(damaged), "checksum is wrong"),
        (whole[:-40], "checksum"),
        (bytes(bbolt), "make-mirror"),
        (b"", "not a snapshot"),
        (b"x" * 5000, "not a snapshot"),
    ):
        file.write_bytes(data)
        with pytest.raises(StorageError, match=said):
            snapshot.restore(file, target)
    assert not target.data_dir.exists()
    file.write_bytes(whole)
    snapshot.restore(file, target)
    with pytest.raises(StorageError, match="not empty"):
        snapshot.restore(file, target)
    with pytest.raises(StorageError, match="cannot read"):
        snapshot.restore(tmp_path / "absent", Config(data_dir=tmp_path / "other"))
