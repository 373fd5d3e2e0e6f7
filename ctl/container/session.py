"""Our standard streams, joined to a container's.

Two connections: one carries what the container says, from its first byte on when it is made before the start, and ends
with the exit code; the other carries what we say, and our terminal's sizes. Either may be absent.
"""

import asyncio
import contextlib
import json
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ctl.container.group import DaemonError
from ctl.container.node import Container, Node
from ctl.cri.stream_client import (
    CLOSE_STDIN,
    ERROR,
    RESIZE,
    STDERR,
    STDIN,
    STDOUT,
    V4,
    V5,
    StreamTLS,
    connected,
    exit_code_of,
)
from ctl.errors import CtlError
from ctl.terminal import raw_terminal, read_input, window_sizes, write_all

if TYPE_CHECKING:
    from aiohttp import ClientWebSocketResponse

T = TypeVar("T")
PROXIED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
FORCED_AFTER = 3
"""So many SIGINTs or SIGTERMs, and we leave the container to itself."""


class Detached(Exception):
    """The user pressed the detach keys, or insisted on leaving."""


async def output_url(node: Node, container: Container) -> str:
    """Where the container's outputs are. A CREATED one's are complete. Raises the runtime's refusal."""
    from protos.cri import runtime_pb2 as pb

    tty = container.spec.tty
    request = pb.AttachRequest(container_id=container.cri_id, stdout=True, stderr=not tty, tty=tty)
    return (await node.cri.Attach(request)).url


async def input_url(node: Node, container: Container) -> str:
    """Where its input is, and its terminal's size."""
    from protos.cri import runtime_pb2 as pb

    request = pb.AttachRequest(container_id=container.cri_id, stdin=True, tty=container.spec.tty)
    return (await node.cri.Attach(request)).url


async def carry_output(url: str) -> int:
    """Write what comes to our stdout and stderr; the exit code at its end. Raises CtlError."""
    async with connected(url, (V5, V4), StreamTLS()) as ws:
        return await receive(ws)


async def receive(ws: "ClientWebSocketResponse", write: Callable[[int, bytes], None] = write_all) -> int:
    """As carry_output, of an open connection."""
    status: dict[str, Any] | None = None
    async for message in ws:
        data = message.data if isinstance(message.data, bytes) else b""
        channel, payload = data[:1], data[1:]
        if channel in (bytes([STDOUT]), bytes([STDERR])):
            write(channel[0], payload)
        elif channel == bytes([ERROR]) and payload:
            status = json.loads(payload)
    return exit_code_of(status)


async def code_at_end(url: str) -> int:
    """The exit code at the end of the stream; what it says is not for us. Raises CtlError."""
    async with connected(url, (V5, V4), StreamTLS()) as ws:
        return await receive(ws, write=lambda fd, data: None)


async def carry_input(url: str, stdin: bool, tty: bool, keys: bytes) -> None:
    """Send our input and our terminal's sizes until the container ends. Raises Detached."""
    async with connected(url, (V5, V4), StreamTLS()) as ws:
        senders = [send_input(ws, keys if tty else b"")] if stdin else []
        senders += [send_sizes(ws)] if tty else []
        await until(_drained(ws), *senders)


async def _drained(ws: "ClientWebSocketResponse") -> None:
    async for _ in ws:
        pass


async def until(main: Coroutine[Any, Any, T], *others: Awaitable[None]) -> T:
    """What ``main`` comes to; the others end with it, and one that fails before ends it."""
    leading = asyncio.ensure_future(main)
    pending: set[asyncio.Future[Any]] = {leading, *map(asyncio.ensure_future, others)}
    every = set(pending)
    try:
        while not leading.done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done if not leading.done() else ():
                task.result()
        return leading.result()
    finally:
        for task in every:
            task.cancel()
        await asyncio.gather(*every, return_exceptions=True)


async def send_input(ws: "ClientWebSocketResponse", keys: bytes) -> None:
    """Our stdin to its end. Raises Detached when ``keys`` come in it."""
    watcher = DetachKeys(keys)
    async for chunk in read_input(0):
        passed, detached = watcher.feed(chunk)
        if passed:
            await ws.send_bytes(bytes([STDIN]) + passed)
        if detached:
            raise Detached
    if ws.protocol == V5:  # v4 has no way to say it
        await ws.send_bytes(CLOSE_STDIN)


async def send_sizes(ws: "ClientWebSocketResponse") -> None:
    """Our terminal's sizes."""
    async for size in window_sizes(1):
        await ws.send_bytes(bytes([RESIZE]) + json.dumps({"Width": size.width, "Height": size.height}).encode())


class DetachKeys:
    """Finds the detach sequence in what is typed. What might be its beginning is held back. Pure."""

    def __init__(self, keys: bytes) -> None:
        self._keys, self._matched = keys, 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(what to pass on, whether the sequence is complete)."""
        if not self._keys:
            return data, False
        passed = bytearray()
        for byte in data:
            if byte != self._keys[self._matched]:
                passed += self._keys[: self._matched]
                self._matched = 0
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    return bytes(passed), True
            else:
                passed.append(byte)
        return bytes(passed), False


async def foreground(node: Node, container: Container, url: str, stdin: bool, keys: bytes, proxy: bool) -> int:
    """Be joined to a running container, whose outputs are at ``url``, until it ends; its exit code. Raises Detached."""
    tty = container.spec.tty
    left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    inputs = [_input(node, container, stdin, keys)] if stdin or tty else []
    raw = tty and stdin
    with raw_terminal(0 if raw else -1), _signals(node, container, left, proxy and not raw):
        return await until(carry_output(url), left, *inputs)


async def _input(node: Node, container: Container, stdin: bool, keys: bytes) -> None:
    """As carry_input; that the container has ended is for the output to say."""
    import grpc

    try:
        await carry_input(await input_url(node, container), stdin, container.spec.tty, keys)
    except (grpc.aio.AioRpcError, CtlError, ConnectionError):
        return


@contextlib.contextmanager
def _signals(node: Node, container: Container, left: "asyncio.Future[None]", proxy: bool) -> Iterator[None]:
    """Pass signals on to the container; when the third SIGINT or SIGTERM comes, ``left`` raises Detached."""
    loop, tasks, insisted = asyncio.get_running_loop(), set[asyncio.Task[None]](), [0]

    def handle(number: signal.Signals) -> None:
        tasks.add(loop.create_task(_pass_on(node, container, number)))
        insisted[0] += number in (signal.SIGINT, signal.SIGTERM)
        if insisted[0] == FORCED_AFTER and not left.done():
            click.echo(f"got {FORCED_AFTER} SIGTERM/SIGINTs, leaving the container to itself", err=True)
            left.set_exception(Detached())

    numbers = PROXIED if proxy else ()
    for number in numbers:
        loop.add_signal_handler(number, handle, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _pass_on(node: Node, container: Container, number: int) -> None:
    import grpc

    try:
        await node.signal(container, number)
    except (DaemonError, grpc.aio.AioRpcError):
        return  # it has ended meanwhile
