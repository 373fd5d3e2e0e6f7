"""The Lock and Election services, on our store and on a real etcd alike."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from protos.etcd import election_pb2 as ep
from protos.etcd import election_pb2_grpc, lock_pb2_grpc, rpc_pb2, rpc_pb2_grpc
from protos.etcd import lock_pb2 as lp


class Stubs:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.lock = lock_pb2_grpc.LockStub(channel)
        self.election = election_pb2_grpc.ElectionStub(channel)
        self.kv = rpc_pb2_grpc.KVStub(channel)
        self.lease = rpc_pb2_grpc.LeaseStub(channel)

    async def grant(self) -> int:
        return (await self.lease.LeaseGrant(rpc_pb2.LeaseGrantRequest(TTL=60))).ID


@pytest.fixture
async def stubs(any_server: Any) -> AsyncIterator[Stubs]:
    async with grpc.aio.insecure_channel(any_server.address) as channel:
        yield Stubs(channel)


@pytest.fixture
def name() -> bytes:
    return uuid.uuid4().hex.encode()


async def in_line(stubs: Stubs, name: bytes, number: int) -> None:
    """Until so many keys are in line."""
    everything = rpc_pb2.RangeRequest(key=name + b"/", range_end=name + b"0", count_only=True)
    async with asyncio.timeout(10):
        while (await stubs.kv.Range(everything)).count != number:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)


async def test_a_lock_is_held_by_one_at_a_time(stubs: Stubs, name: bytes) -> None:
    lease = await stubs.grant()
    held = await stubs.lock.Lock(lp.LockRequest(name=name, lease=lease))
    assert held.key == b"%s/%x" % (name, lease)
    again = await stubs.lock.Lock(lp.LockRequest(name=name, lease=lease))
    assert again.key == held.key
    waiting = stubs.lock.Lock(lp.LockRequest(name=name, lease=await stubs.grant()))
    await in_line(stubs, name, 2)
    assert not waiting.done()
    await stubs.lock.Unlock(lp.UnlockRequest(key=held.key))
    await stubs.lock.Unlock(lp.UnlockRequest(key=(await waiting).key))
    await stubs.lock.Unlock(lp.UnlockRequest(key=held.key))
    assert (await stubs.lock.Lock(lp.LockRequest(name=name))).key.startswith(name + b"/")


async def test_a_cancelled_wait_leaves_no_key(stubs: Stubs, name: bytes) -> None:
    held = await stubs.lock.Lock(lp.LockRequest(name=name, lease=await stubs.grant()))
    waiting = stubs.lock.Lock(lp.LockRequest(name=name, lease=await stubs.grant()))
    await in_line(stubs, name, 2)
    waiting.cancel()
    await in_line(stubs, name, 1)
    await stubs.lock.Unlock(lp.UnlockRequest(key=held.key))


async def test_a_lock_goes_with_its_lease(stubs: Stubs, name: bytes) -> None:
    lease = await stubs.grant()
    await stubs.lock.Lock(lp.LockRequest(name=name, lease=lease))
    waiting = stubs.lock.Lock(lp.LockRequest(name=name, lease=await stubs.grant()))
    await in_line(stubs, name, 2)
    await stubs.lease.LeaseRevoke(rpc_pb2.LeaseRevokeRequest(ID=lease))
    await waiting


async def test_a_lock_with_an_unknown_lease_is_refused(stubs: Stubs, name: bytes) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="requested lease not found"):
        await stubs.lock.Lock(lp.LockRequest(name=name, lease=12345))


async def test_one_leads_then_the_next(stubs: Stubs, name: bytes) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stubs.election.Leader(ep.LeaderRequest(name=name))
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNKNOWN, "election: no leader")
    first = ep.CampaignRequest(name=name, lease=await stubs.grant(), value=b"one")
    leading = (await stubs.election.Campaign(first)).leader
    assert (leading.name, leading.lease) == (name, first.lease)
    assert (await stubs.election.Leader(ep.LeaderRequest(name=name))).kv.value == b"one"
    seen = stubs.election.Observe(ep.LeaderRequest(name=name))
    assert (await seen.read()).kv.value == b"one"
    second = stubs.election.Campaign(ep.CampaignRequest(name=name, lease=await stubs.grant(), value=b"two"))
    await in_line(stubs, name, 2)
    await stubs.election.Proclaim(ep.ProclaimRequest(leader=leading, value=b"uno"))
    assert (await seen.read()).kv.value == b"uno"
    await stubs.election.Resign(ep.ResignRequest(leader=leading))
    assert (await second).leader.key != leading.key
    assert (await seen.read()).kv.value == b"two"
    with pytest.raises(grpc.aio.AioRpcError, match="election: not leader"):
        await stubs.election.Proclaim(ep.ProclaimRequest(leader=leading, value=b"x"))
    await stubs.election.Resign(ep.ResignRequest(leader=leading))
    seen.cancel()


async def test_campaigning_again_keeps_the_place_and_updates_the_value(stubs: Stubs, name: bytes) -> None:
    lease = await stubs.grant()
    first = await stubs.election.Campaign(ep.CampaignRequest(name=name, lease=lease, value=b"1"))
    again = await stubs.election.Campaign(ep.CampaignRequest(name=name, lease=lease, value=b"2"))
    assert again.leader == first.leader
    assert (await stubs.election.Leader(ep.LeaderRequest(name=name))).kv.value == b"2"


async def test_observing_waits_for_a_first_leader(stubs: Stubs, name: bytes) -> None:
    seen = stubs.election.Observe(ep.LeaderRequest(name=name))
    await stubs.election.Campaign(ep.CampaignRequest(name=name, lease=await stubs.grant(), value=b"1"))
    assert (await seen.read()).kv.value == b"1"
    seen.cancel()


async def test_a_missing_leader_is_named(stubs: Stubs) -> None:
    for call in (stubs.election.Resign(ep.ResignRequest()), stubs.election.Proclaim(ep.ProclaimRequest())):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert (caught.value.code(), caught.value.details()) == (
            grpc.StatusCode.UNKNOWN,
            '"leader" field must be provided',
        )
