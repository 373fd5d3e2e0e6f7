"""Requests to a supervisor or the zygote that are under way at the same time."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from cri_runtime.pod.client import Connection
from cri_runtime.pod.errors import SupervisorGone
from cri_runtime.shim import messages


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Connection, socket.socket]]:
    """A connection, and the peer's blocking socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    connection = Connection(ours, lambda event: None, lambda: None)
    yield connection, theirs
    connection.close()
    theirs.close()


def answer(peer: socket.socket, sequence: int) -> None:
    messages.send(peer, {"seq": sequence, "ok": {"number": sequence}})


async def receive(peer: socket.socket, count: int) -> list[int]:
    """The numbers of the next ``count`` requests."""
    reader, numbers = messages.Reader(peer), []
    while len(numbers) < count:
        numbers += [message["seq"] for message, _ in await asyncio.to_thread(reader.receive)]
    return numbers


async def test_each_request_gets_its_own_answer_in_whatever_order_they_come(
    ends: tuple[Connection, socket.socket],
) -> None:
    connection, peer = ends
    requests = [asyncio.create_task(connection.request("state")) for _ in range(5)]
    numbers = await receive(peer, 5)
    for number in numbers:
        answer(peer, number)
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        answers = [await request for request in requests]
    assert [ok["number"] for ok, _ in answers] == numbers


async def test_a_cancelled_request_does_not_take_the_next_ones_answer(ends: tuple[Connection, socket.socket]) -> None:
    connection, peer = ends
    first = asyncio.create_task(connection.request("state"))
    second = asyncio.create_task(connection.request("state"))
    numbers = await receive(peer, 2)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    for number in numbers:
        answer(peer, number)
    async with asyncio.timeout(5):
        ok, _ = await second
    assert ok == {"number": numbers[1]}


async def test_who_waits_when_the_peer_goes_hears_of_it(ends: tuple[Connection, socket.socket]) -> None:
    connection, peer = ends
    request = asyncio.create_task(connection.request("state"))
    await receive(peer, 1)
    peer.close()
    with pytest.raises(SupervisorGone):
        await request
