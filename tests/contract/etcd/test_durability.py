"""Acknowledged means durable: SIGKILL at any instant loses nothing that was answered, and replays exactly."""

import asyncio
from typing import Any

import grpc
import pytest

from protos.etcd import rpc_pb2, rpc_pb2_grpc
from raftstore.client import Client, errors


async def test_no_acknowledged_write_is_lost_by_kill_9(start_knarr: Any) -> None:
    server = start_knarr()
    acknowledged: dict[bytes, int] = {}

    async def write(client: Client, worker: int) -> None:
        for number in range(100_000):
            key = b"%d/%d" % (worker, number)
            try:
                acknowledged[key] = (await client.put(key, key * 20)).header.revision
            except errors.EtcdError:
                return

    for round in range(3):
        async with Client([server.url], timeout_s=0.5) as client:
            async with asyncio.TaskGroup() as tasks:
                for worker in range(16):
                    tasks.create_task(write(client, round * 16 + worker))
                await asyncio.sleep(0.4)
                server.kill()
            server.start()
            found = await client.range(b"\0", b"\0")
            stored = {kv.key: kv.mod_revision for kv in found.kvs}
            assert acknowledged.items() <= stored.items()
            assert len(set(stored.values())) == len(stored)
            assert found.header.revision == max(stored.values())
    assert len(acknowledged) > 100


async def test_all_state_survives_kill_9_and_a_checkpoint_in_between(start_knarr: Any) -> None:
    server = start_knarr()
    async with Client([server.url]) as client:
        await client.lease_grant(100, id=7)
        await client.put(b"leased", b"1", lease=7)
        for value in range(10):
            await client.put(b"a", b"%d" % value)
        await client.delete_range(b"a")
        revision = (await client.put(b"b", b"1")).header.revision
        await client.compact(revision - 3, physical=True)  # writes a checkpoint
        await client.lease_grant(100, id=8)
        last = (await client.put(b"b", b"2", lease=8)).header.revision
        before = await client.range(b"\0", b"\0")
        server.kill()
        server.start()
        after = await client.range(b"\0", b"\0")
        assert list(after.kvs) == list(before.kvs)
        assert after.header.revision == last
        assert (await client.range(b"a", revision=revision - 2)).kvs[0].value == b"9"
        assert {lease.ID for lease in (await client.lease_leases()).leases} == {7, 8}
        assert list((await client.lease_time_to_live(8, keys=True)).keys) == [b"b"]
        await client.lease_revoke(7)
        assert (await client.range(b"leased")).count == 0


async def test_a_lease_expires_through_the_log(start_knarr: Any) -> None:
    server = start_knarr("--heartbeat-interval", "10", "--election-timeout", "100")
    async with Client([server.url]) as client:
        lease = (await client.lease_grant(1)).ID
        await client.put(b"a", b"1", lease=lease)
        deleted = [event async for event in _first_event(client, b"a")]
        assert deleted[0].type == deleted[0].DELETE
        assert deleted[0].prev_kv.value == b"1"
        assert (await client.lease_time_to_live(lease)).TTL == -1


async def _first_event(client: Client, key: bytes) -> Any:
    async for response in client.watch(key):
        for event in response.events:
            yield event
            return


async def test_outgrowing_the_quota_refuses_writes_until_there_is_room_again(start_knarr: Any) -> None:
    server = start_knarr("--quota-backend-bytes", "400000")
    async with Client([server.url]) as client:
        with pytest.raises(errors.NoSpace):
            for number in range(200):
                revision = (await client.put(b"%d" % (number % 4), bytes(20_000))).header.revision
                if number % 10 == 9:
                    await _checkpoint(server)
        assert (await client.status()).errors
        await client.delete_range(b"0")
        await client.compact(revision)
        await _checkpoint(server)
        async with grpc.aio.insecure_channel(server.address) as channel:
            maintenance = rpc_pb2_grpc.MaintenanceStub(channel)
            raised = (await maintenance.Alarm(rpc_pb2.AlarmRequest())).alarms[0]
            clear = rpc_pb2.AlarmRequest(action=2, memberID=raised.memberID, alarm=raised.alarm)
            assert list((await maintenance.Alarm(clear)).alarms) == [raised]
        await client.put(b"a", b"1")


async def _checkpoint(server: Any) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        await rpc_pb2_grpc.MaintenanceStub(channel).Defragment(rpc_pb2.DefragmentRequest())
