"""Our asyncio client, on our store and on a real etcd alike."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from raftstore.client import Client, compare_mod, errors, op_delete, op_put, op_range, prefix_end


@pytest.fixture
async def client(any_server: Any) -> AsyncIterator[Client]:
    async with Client([any_server.url]) as client:
        await client.delete_range(b"\0", b"\0")
        yield client


def test_prefix_end() -> None:
    assert prefix_end(b"/a/") == b"/a0"
    assert prefix_end(b"a\xff\xff") == b"b"
    assert prefix_end(b"") == prefix_end(b"\xff") == b"\0"


async def test_put_range_and_delete(client: Client) -> None:
    put = await client.put(b"/a", b"1")
    found = await client.range(b"/", prefix_end(b"/"))
    assert [(kv.key, kv.value, kv.mod_revision) for kv in found.kvs] == [(b"/a", b"1", put.header.revision)]
    assert (await client.put(b"/a", b"2", prev_kv=True)).prev_kv.value == b"1"
    assert (await client.range(b"/a", revision=put.header.revision)).kvs[0].value == b"1"
    deleted = await client.delete_range(b"/a", prev_kv=True)
    assert (deleted.deleted, deleted.prev_kvs[0].value) == (1, b"2")
    assert (await client.range(b"/a", serializable=True)).count == 0


async def test_txn_creates_only_once(client: Client) -> None:
    create = ([compare_mod(b"a", "=", 0)], [op_put(b"a", b"1")], [op_range(b"a")])
    assert (await client.txn(*create)).succeeded
    again = await client.txn(*create)
    assert not again.succeeded
    assert again.responses[0].response_range.kvs[0].value == b"1"
    assert (await client.txn([], [op_delete(b"a")])).responses[0].response_delete_range.deleted == 1


async def test_watch_replays_then_follows(client: Client) -> None:
    first = (await client.put(b"a", b"1")).header.revision
    async with aclosing(client.watch(b"a", start_revision=first)) as responses:
        assert (await anext(responses)).created
        assert (await anext(responses)).events[0].kv.value == b"1"
        await client.put(b"a", b"2")
        event = (await anext(responses)).events[0]
        assert (event.kv.value, event.prev_kv.value) == (b"2", b"1")


async def test_watch_of_compacted_history_raises(client: Client) -> None:
    for value in (b"1", b"2", b"3"):
        revision = (await client.put(b"a", value)).header.revision
    await client.compact(revision)
    with pytest.raises(errors.Compacted) as caught:
        async for _ in client.watch(b"a", start_revision=revision - 2):
            pass
    assert caught.value.compact_revision == revision
    with pytest.raises(errors.Compacted):
        await client.range(b"a", revision=revision - 1)
    with pytest.raises(errors.Compacted):
        await client.compact(revision)


async def test_a_refused_watch_raises_with_the_reason(client: Client) -> None:
    with pytest.raises(errors.WatchCanceled, match="range is empty"):
        async for _ in client.watch(b"b", b"a"):
            pass


async def test_leases(client: Client) -> None:
    lease = (await client.lease_grant(100)).ID
    await client.put(b"a", b"1", lease=lease)
    assert (await client.lease_keep_alive_once(lease)).TTL == 100
    left = await client.lease_time_to_live(lease, keys=True)
    assert (left.grantedTTL, list(left.keys)) == (100, [b"a"])
    assert lease in [status.ID for status in (await client.lease_leases()).leases]
    await client.lease_revoke(lease)
    assert (await client.range(b"a")).count == 0
    with pytest.raises(errors.LeaseNotFound):
        await client.lease_keep_alive_once(lease)
    with pytest.raises(errors.LeaseNotFound):
        await client.put(b"a", b"1", lease=lease)


@pytest.mark.parametrize("ttl", [1, 0, -5])
async def test_a_lease_lives_at_least_one_and_a_half_election_timeouts(ttl: int, client: Client) -> None:
    granted = await client.lease_grant(ttl)
    assert granted.TTL == 2
    await client.lease_revoke(granted.ID)


async def test_status_and_members(client: Client) -> None:
    status = await client.status()
    assert status.leader == status.header.member_id
    assert [member.ID for member in (await client.member_list()).members] == [status.leader]


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda c: c.range(b""), errors.EmptyKey),
        (lambda c: c.range(b"a", revision=10**9), errors.FutureRevision),
        (lambda c: c.put(b"a", bytes(1_600_000)), errors.TooLarge),
        (lambda c: c.txn([], [op_put(b"a", b"1"), op_put(b"a", b"2")]), errors.DuplicateKey),
        (lambda c: c.txn([], [op_range(b"a")] * 129), errors.TooManyOps),
        (lambda c: c.lease_grant(10, id=0xABC), errors.LeaseExists),
    ],
    ids=["empty key", "future", "too large", "duplicate", "too many", "lease exists"],
)
async def test_refusals_are_exceptions(call: Any, kind: type[Exception], client: Client) -> None:
    try:
        await client.lease_grant(10, id=0xABC)
    except errors.LeaseExists:
        pass
    with pytest.raises(kind):
        await call(client)


async def test_the_next_endpoint_is_tried(any_server: Any) -> None:
    async with Client(["http://127.0.0.1:1", any_server.url]) as client:
        await client.put(b"a", b"1")
        async with aclosing(client.watch(b"a")) as responses:
            assert (await anext(responses)).created


async def test_an_absent_store_is_unavailable() -> None:
    async with Client(["http://127.0.0.1:1"], timeout_s=0.3) as client:
        with pytest.raises(errors.Unavailable):
            await client.put(b"a", b"1")


async def test_a_watch_outlives_a_restart_of_the_store(start_knarr: Any) -> None:
    server = start_knarr()
    async with Client([server.url]) as client:
        seen: list[bytes] = []

        async def follow() -> None:
            async with aclosing(client.watch(b"a")) as responses:
                async for response in responses:
                    seen.extend(event.kv.value for event in response.events)
                    if response.created:
                        created.set()
                    if seen[-1:] == [b"9"]:
                        return

        created = asyncio.Event()
        follower = asyncio.create_task(follow())
        await created.wait()
        for value in range(5):
            await client.put(b"a", b"%d" % value)
        server.kill()
        server.start()
        for value in range(5, 10):
            await client.put(b"a", b"%d" % value)
        await asyncio.wait_for(follower, 20)
        assert seen == [b"%d" % value for value in range(10)]
