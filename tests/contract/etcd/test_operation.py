"""Running it: compaction by itself, space, metrics, health over HTTP, hashes."""

import asyncio
import socket
import urllib.error
import urllib.request
from typing import Any

import pytest

from protos.etcd import rpc_pb2 as pb
from raftstore.client import Client, errors


def free_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


async def get(url: str) -> tuple[int, str]:
    def fetch() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as err:
            return err.code, err.read().decode()

    return await asyncio.to_thread(fetch)


async def test_health_version_and_metrics_over_http(start_knarr: Any) -> None:
    url = free_url()
    server = start_knarr("--listen-metrics-urls", url)
    async with Client([server.url]) as client:
        for _ in range(5):
            await client.put(b"a", b"1")
    assert await get(f"{url}/health") == (200, '{"health": "true", "reason": ""}')
    assert (await get(f"{url}/livez"))[1] == "ok\n"
    assert (await get(f"{url}/readyz"))[1] == "ok\n"
    assert "etcdserver" in (await get(f"{url}/version"))[1]
    lines = (await get(f"{url}/metrics"))[1].splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert values["etcd_debugging_mvcc_current_revision"] == "6"
    assert values["etcd_server_has_leader"] == "1"
    assert int(values["etcd_disk_wal_fsync_duration_seconds_count"]) >= 5
    assert values['etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"}'] >= "5"
    described = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert {name.partition("{")[0].removesuffix("_total") for name in values} >= {
        n.removesuffix("_total") for n in described if "duration" not in n
    }


async def test_a_full_quota_refuses_writes_until_space_is_made(start_knarr: Any) -> None:
    url = free_url()
    server = start_knarr("--quota-backend-bytes", str(2 << 20), "--listen-metrics-urls", url)
    async with Client([server.url]) as client:
        with pytest.raises(errors.NoSpace):
            for number in range(200):
                revision = (await client.put(b"k%d" % (number % 3), bytes(64 * 1024))).header.revision
                if number % 20 == 19:
                    await client.compact(
                        2 + number // 20, physical=True
                    )  # writes a checkpoint, which looks at the size
        with pytest.raises(errors.NoSpace):
            await client.lease_grant(100)
        assert await get(f"{url}/health") == (503, '{"health": "false", "reason": "ALARM NOSPACE"}')
        assert (await get(f"{url}/health?exclude=NOSPACE"))[0] == 200
        await client.delete_range(b"k0")
        assert (await client.range(b"k1")).count == 1
        await client.compact(revision, physical=True)
        alarms = (await client.alarms()).alarms
        assert [alarm.alarm for alarm in alarms] == [pb.NOSPACE]
        await client.disarm(alarms[0])
        await client.put(b"k0", b"1")
        before = (await client.status()).dbSize
        for _ in range(3):  # the pages that compactions free are used again
            for number in range(10):
                revision = (await client.put(b"k%d" % (number % 3), bytes(64 * 1024))).header.revision
            await client.compact(revision, physical=True)
        assert (await client.status()).dbSize <= 2 * before


async def test_history_is_compacted_by_itself(start_knarr: Any) -> None:
    server = start_knarr("--auto-compaction-mode", "periodic", "--auto-compaction-retention", "200ms")
    async with Client([server.url]) as client:
        first = (await client.put(b"a", b"1")).header.revision
        await client.put(b"a", b"2")
        with pytest.raises(errors.Compacted):
            async with asyncio.timeout(20):
                while True:
                    await client.range(b"a", revision=first)
                    await asyncio.sleep(0.02)


async def test_equal_histories_have_equal_hashes(start_knarr: Any) -> None:
    server = start_knarr()
    async with Client([server.url]) as client:
        revision = (await client.put(b"a", b"1")).header.revision
        then = await client.hash_kv()
        await client.put(b"a", b"2")
        assert (await client.hash_kv()).hash != then.hash
        assert (await client.hash_kv(revision)).hash == then.hash
        compacted = (await client.compact(revision + 1)).header.revision
        after = await client.hash_kv()
        assert (after.compact_revision, after.hash_revision) == (compacted, compacted)
        server.kill()
        server.start()
        assert (await client.hash_kv()).hash == after.hash
        with pytest.raises(errors.Compacted):
            await client.hash_kv(revision)
        with pytest.raises(errors.FutureRevision):
            await client.hash_kv(1000)


async def test_a_corrupt_alarm_stops_writes_and_not_reads(start_knarr: Any) -> None:
    server = start_knarr()
    async with Client([server.url]) as client:
        await client.put(b"a", b"1")
        member = (await client.status()).header.member_id
        await client.raise_alarm(pb.AlarmMember(memberID=member, alarm=pb.CORRUPT))
        for change in (client.put(b"a", b"2"), client.delete_range(b"a"), client.compact(2), client.lease_grant(9)):
            with pytest.raises(errors.Corrupt):
                await change
        assert (await client.range(b"a")).kvs[0].value == b"1"
        await client.disarm(pb.AlarmMember(memberID=member, alarm=pb.CORRUPT))
        await client.put(b"a", b"2")


async def test_a_range_in_chunks_is_one_revision(start_knarr: Any) -> None:
    from protos.etcd import rpc_pb2_grpc
    from protos.serving import open_channel

    server = start_knarr()
    async with Client([server.url]) as client, open_channel(server.url) as channel:
        for number in range(60):
            await client.put(b"k%02d" % number, bytes(20_000))
        kv = rpc_pb2_grpc.KVStub(channel)
        chunks = [c.range_response async for c in kv.RangeStream(pb.RangeRequest(key=b"k", range_end=b"l", limit=50))]
        assert len(chunks[0].kvs) == 10
        assert [kv.key for chunk in chunks for kv in chunk.kvs] == [b"k%02d" % number for number in range(50)]
        assert [(chunk.more, chunk.count) for chunk in chunks[:-1]] == [(False, 0)] * (len(chunks) - 1)
        assert (chunks[-1].more, chunks[-1].count, chunks[-1].header.revision) == (True, 60, 61)
