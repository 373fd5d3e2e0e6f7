"""The work queue's four promises, and its delays."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from control.client import WorkQueue


async def test_keys_come_in_order_and_once() -> None:
    queue = WorkQueue()
    for key in ("a", "b", "a", "c", "b"):
        queue.add(key)
    assert [await queue.get() for _ in range(3)] == ["a", "b", "c"] and len(queue) == 0


async def test_a_key_in_hand_is_given_to_nobody_else_and_comes_again() -> None:
    queue = WorkQueue()
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_a_waiting_worker_is_woken_and_delays_keep_the_earliest() -> None:
    queue = WorkQueue()
    worker = asyncio.create_task(queue.get())
    queue.add_after("a", 30)
    queue.add_after("a", 0.01)
    queue.add_after("a", 20)
    async with asyncio.timeout(5):
        assert await worker == "a"


async def test_failures_double_the_delay_until_forgotten() -> None:
    queue = WorkQueue(base_delay_s=0.001, max_delay_s=0.004)
    for count in range(1, 6):
        queue.add_rate_limited("a")
        assert queue.failures("a") == count
        async with asyncio.timeout(5):
            assert await queue.get() == "a"
        queue.done("a")
    queue.forget("a")
    assert queue.failures("a") == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "get", "done"]), st.sampled_from("abc")), max_size=40))
def test_no_key_is_ever_lost_or_in_two_hands(steps: list[tuple[str, str]]) -> None:
    async def play() -> None:
        queue, wanted, held = WorkQueue(), set(), set()
        for step, key in steps:
            if step == "add":
                queue.add(key)
                wanted.add(key)
            elif step == "get" and len(queue):
                got = await queue.get()
                assert got in wanted and got not in held
                wanted.discard(got)
                held.add(got)
            elif step == "done" and key in held:
                held.discard(key)
                queue.done(key)
        for key in sorted(held):
            queue.done(key)
        assert {await queue.get() for _ in range(len(queue))} == wanted

    asyncio.run(play())
