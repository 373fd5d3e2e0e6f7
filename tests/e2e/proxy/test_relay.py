"""Bytes through the proxy: what TCP promises end to end must hold with us in the middle."""

import asyncio
import hashlib
import os
import random
import socket

import pytest

pytestmark = pytest.mark.root
VIP = "10.96.0.10"


def named(name):
    async def handler(reader, writer):
        writer.write(name.encode())
        await writer.drain()
        await reader.read()

    return handler


async def echo(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


async def test_connections_are_spread_over_all_ready_pods(ns, pods, start_proxy, service, slices):
    for number in (2, 3, 4):
        await pods(f"10.244.0.{number}", named(f"pod{number}"))
    await start_proxy(service(), slices("10.244.0.2", "10.244.0.3", "10.244.0.4"))
    answers = [await ns.ask(VIP, 80) for _ in range(9)]
    assert sorted(answers) == sorted([b"pod2", b"pod3", b"pod4"] * 3)


async def test_least_connections_prefers_the_idle_pod(ns, pods, start_proxy, service, slices):
    await pods("10.244.0.2", named("pod2"))
    await pods("10.244.0.3", named("pod3"))
    least = {"knarr.dev/balance": "least-connections"}
    await start_proxy(service(annotations=least), slices("10.244.0.2", "10.244.0.3"))
    held = [await ns.connect(VIP, 80) for _ in range(10)]
    answers = [await reader.readexactly(4) for reader, _ in held]
    assert answers.count(b"pod2") == answers.count(b"pod3") == 5
    for _, writer in held:
        writer.close()


async def test_affinity_keeps_a_client_on_its_pod(ns, pods, start_proxy, service, slices):
    addresses = [f"10.244.0.{number}" for number in range(2, 8)]
    for address in addresses:
        await pods(address, named(address))
    await start_proxy(service(sessionAffinity="ClientIP"), slices(*addresses))
    by_client = {
        source: {await ns.ask(VIP, 80, source=source) for _ in range(5)} for source in ("127.0.0.5", "127.0.0.6")
    }
    assert all(len(answers) == 1 for answers in by_client.values())


async def test_client_may_end_its_half_and_still_read_the_answer(ns, pods, start_proxy, service, slices):
    async def count(reader, writer):
        request = await reader.read()  # to end of file: arrives only if the half-close does
        writer.write(str(len(request)).encode())

    await pods("10.244.0.2", count)
    await start_proxy(service(), slices("10.244.0.2"))
    assert await ns.ask(VIP, 80, b"x" * 100_000) == b"100000"


async def test_server_may_end_its_half_and_still_read_the_request(ns, pods, start_proxy, service, slices):
    received = asyncio.get_running_loop().create_future()

    async def bye_then_listen(reader, writer):
        writer.write(b"bye")
        writer.write_eof()
        received.set_result(await reader.read())

    await pods("10.244.0.2", bye_then_listen)
    await start_proxy(service(), slices("10.244.0.2"))
    reader, writer = await ns.connect(VIP, 80)
    assert await reader.read() == b"bye"
    writer.write(b"last words")
    writer.close()
    assert await received == b"last words"


async def test_megabytes_arrive_unchanged_both_ways_at_once(ns, pods, start_proxy, service, slices):
    await pods("10.244.0.2", echo)
    await start_proxy(service(), slices("10.244.0.2"))
    data = os.urandom(48 << 20)

    async def one():
        reader, writer = await ns.connect(VIP, 80)

        async def send():
            writer.write(data)
            await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        digest = hashlib.sha256()
        while chunk := await reader.read(1 << 20):
            digest.update(chunk)
        await sending
        writer.close()
        return digest.digest()

    expected = hashlib.sha256(data).digest()
    assert await asyncio.gather(one(), one()) == [expected, expected]


async def test_mixed_sizes_and_pauses_arrive_unchanged(ns, pods, start_proxy, service, slices):
    """Crosses the border between copying and splicing again and again."""
    await pods("10.244.0.2", echo)
    await start_proxy(service(), slices("10.244.0.2"))
    rng = random.Random(7)
    reader, writer = await ns.connect(VIP, 80)
    for _ in range(120):
        data = rng.randbytes(rng.choice([1, 100, 65_535, 65_536, 65_537, 3 << 20]))
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
    writer.close()


async def test_a_client_that_does_not_read_stops_the_server_and_not_the_others(ns, pods, start_proxy, service, slices):
    stuck = asyncio.Event()

    async def flood(reader, writer):
        if await reader.read(1) != b"f":
            writer.write(b"quick")
            return
        writer.transport.set_write_buffer_limits(0)
        for _ in range(4096):
            try:
                async with asyncio.timeout(0.3):
                    writer.write(bytes(1 << 16))
                    await writer.drain()
            except TimeoutError:
                stuck.set()
                await writer.drain()

    await pods("10.244.0.2", flood)
    await start_proxy(service(), slices("10.244.0.2"))
    reader, writer = await ns.connect(VIP, 80)
    writer.transport.pause_reading()
    writer.write(b"f")
    await asyncio.wait_for(stuck.wait(), 20)  # 256 MiB were on offer; the proxy took a bounded part of them
    assert await ns.ask(VIP, 80, b"q") == b"quick"
    writer.transport.resume_reading()
    total = 0
    while chunk := await reader.read(1 << 20):
        total += len(chunk)
    assert total == 4096 << 16
    writer.close()


async def test_a_reset_is_passed_on(ns, pods, start_proxy, service, slices):
    async def reset(reader, writer):
        await reader.read(1)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    await pods("10.244.0.2", reset)
    await start_proxy(service(), slices("10.244.0.2"))
    reader, writer = await ns.connect(VIP, 80)
    writer.write(b"x")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_a_client_reset_reaches_the_pod(ns, pods, start_proxy, service, slices):
    outcome = asyncio.get_running_loop().create_future()

    async def handler(reader, writer):
        writer.write(b"hello")
        try:
            outcome.set_result(await reader.read())
        except ConnectionResetError as err:
            outcome.set_result(err)

    await pods("10.244.0.2", handler)
    await start_proxy(service(), slices("10.244.0.2"))
    reader, writer = await ns.connect(VIP, 80)
    await reader.readexactly(5)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()
    assert isinstance(await asyncio.wait_for(outcome, 20), ConnectionResetError)


async def test_what_a_pod_said_before_it_went_is_delivered(ns, pods, start_proxy, service, slices):
    """The pod answers and closes without reading all of the request: its kernel resets the connection."""

    async def rude(reader, writer):
        await reader.read(1)
        writer.write(b"413 too large")
        await writer.drain()

    await pods("10.244.0.2", rude)
    await start_proxy(service(), slices("10.244.0.2"))
    answers = []
    for _ in range(20):
        reader, writer = await ns.connect(VIP, 80)
        writer.write(b"x" * 300)
        answers.append(await reader.readexactly(13))
        writer.close()
    assert set(answers) == {b"413 too large"}


async def test_a_thousand_connections_at_once(ns, pods, start_proxy, service, slices):
    await pods("10.244.0.2", echo)
    await pods("10.244.0.3", echo)
    proxy = await start_proxy(service(), slices("10.244.0.2", "10.244.0.3"))
    held = await asyncio.gather(*(ns.connect(VIP, 80) for _ in range(1000)))
    for number, (_, writer) in enumerate(held):
        writer.write(number.to_bytes(4, "big"))
    answers = [int.from_bytes(await reader.readexactly(4), "big") for reader, _ in held]
    assert answers == list(range(1000))
    (listener,) = await proxy.listeners()
    assert [backend.connections_open for backend in listener.backends] == [500, 500]
    for _, writer in held:
        writer.close()
