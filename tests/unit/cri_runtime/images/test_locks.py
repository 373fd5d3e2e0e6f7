"""Locks by key."""

import asyncio

from cri_runtime.images.locks import KeyedLocks


async def test_one_at_a_time_per_key_and_nothing_kept() -> None:
    locks, inside, most = KeyedLocks(), 0, 0

    async def work() -> None:
        nonlocal inside, most
        async with locks("key"):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(10)))
    assert most == 1
    assert not locks.held("key")


async def test_a_cancelled_waiter_leaves_the_lock_to_others() -> None:
    locks = KeyedLocks()
    async with locks("key"):
        waiter = asyncio.create_task(locks("key").__aenter__())
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        assert locks.held("key")
    assert not locks.held("key")
