"""Port forwarding: connections to ports inside a pod, carried over one connection from outside.

Over SPDY a client opens a pair of streams per connection, ``data`` and ``error``, tied by ``requestid``; any number at
a time. Over a WebSocket the ports are fixed beforehand and have one connection each: channel 2i is the data of port i,
2i+1 its errors.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from cri_runtime.service.streams.channels import ChannelProtocol
from cri_runtime.service.streams.spdy import REFUSED_STREAM, Data, Opened, Reset
from cri_runtime.service.streams.spdy_link import SpdyLink
from cri_runtime.service.streams.transport import READ_BYTES
from cri_runtime.service.streams.websocket import WebSocket

log = logging.getLogger(__name__)

Dialer = Callable[[int], Awaitable[socket.socket]]
"""Connects to a port inside the pod. Raises OSError, whose text the client is shown."""

INBOX_CHUNKS = 8
"""How many of the client's chunks wait for a slow port before the connection itself is held up: SPDY as spoken here has
no flow control per stream."""
PAIRS = 256
"""How many connections one client may have open at a time."""


@dataclass
class Pair:
    """One forwarded connection of a SPDY client."""

    port: int
    streams: dict[str, int] = field(default_factory=dict)  # "data" and "error" to stream number
    inbox: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(INBOX_CHUNKS))
    closed: bool = False  # nobody reads the inbox any more


class SpdyForwarder:
    """Forwards a SPDY client's connections until it goes."""

    def __init__(self, link: SpdyLink, dial: Dialer) -> None:
        self._link = link
        self._dial = dial
        self._pairs: dict[str, Pair] = {}
        self._by_stream: dict[int, Pair] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Until the client goes. Raises ConnectionError when it goes badly."""
        async with asyncio.TaskGroup() as tasks:
            while (event := await self._link.next_event()) is not None:
                if isinstance(event, Opened):
                    await self._open(event, tasks)
                elif isinstance(event, Data):
                    await self._deliver(event.stream, event.data, event.fin)
                elif isinstance(event, Reset):
                    await self._deliver(event.stream, b"", end=True)
            for task in self._running:
                task.cancel()

    async def _open(self, event: Opened, tasks: asyncio.TaskGroup) -> None:
        kind, port = event.headers.get("streamtype", "").lower(), event.headers.get("port", "")
        request = event.headers.get("requestid", "") or f"port {port}"
        valid = kind in ("data", "error") and port.isdecimal() and 0 < int(port) < 65536
        if not valid or (request not in self._pairs and len(self._pairs) >= PAIRS):
            await self._link.send(self._link.codec.reset(event.stream, REFUSED_STREAM))
            return
        pair = self._pairs.setdefault(request, Pair(int(port)))
        pair.streams[kind] = event.stream
        self._by_stream[event.stream] = pair
        await self._link.send(self._link.codec.reply(event.stream))
        if len(pair.streams) == 2:
            task = tasks.create_task(self._forward(request, pair), name=f"forward-{port}")
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        if event.fin:
            await self._deliver(event.stream, b"", end=True)

    async def _deliver(self, stream: int, data: bytes, end: bool) -> None:
        """Hand on what came on a data stream; what comes on an error stream means nothing."""
        pair = self._by_stream.get(stream)
        if pair is None or pair.closed or pair.streams.get("data") != stream:
            return
        if data:
            await pair.inbox.put(data)
        if end:
            await pair.inbox.put(b"")

    async def _forward(self, request: str, pair: Pair) -> None:
        data, error = pair.streams["data"], pair.streams["error"]
        failure = ""
        try:
            reader, writer = await connect(self._dial, pair.port)
            await join(
                reader, writer, pair.inbox.get, lambda chunk: self._link.send(self._link.codec.data(data, chunk))
            )
        except OSError as err:
            failure = f"error forwarding port {pair.port} to pod: {err}"
        finally:
            self._forget(request, pair)
        ends = self._link.codec.data(error, failure.encode(), fin=True) + self._link.codec.data(data, b"", fin=True)
        try:
            await self._link.send(ends)
        except ConnectionError:
            log.debug("port-forward client is gone", extra={"port": pair.port})

    def _forget(self, request: str, pair: Pair) -> None:
        pair.closed = True
        while not pair.inbox.empty():  # whoever waits to put in must not wait for ever
            pair.inbox.get_nowait()
        self._pairs.pop(request, None)
        for stream in pair.streams.values():
            self._by_stream.pop(stream, None)


class WebSocketForwarder:
    """Forwards one connection to each of ``ports`` over a WebSocket's channels."""

    def __init__(self, websocket: WebSocket, protocol: ChannelProtocol, ports: Sequence[int], dial: Dialer) -> None:
        self._websocket = websocket
        self._protocol = protocol
        self._ports = ports
        self._dial = dial
        self._inboxes: list[asyncio.Queue[bytes]] = [asyncio.Queue(INBOX_CHUNKS) for _ in ports]
        self._closed: set[int] = set()

    async def serve(self) -> None:
        """Until the client goes, or every port's connection has ended. Raises ConnectionError when it goes badly."""
        for index, port in enumerate(self._ports):
            for channel in (2 * index, 2 * index + 1):
                await self._send(channel, struct.pack("<H", port))
        client = asyncio.create_task(self._take(), name="forward-input")
        ports = asyncio.create_task(self._forward_all(), name="forward-ports")
        try:
            await asyncio.wait((client, ports), return_when=asyncio.FIRST_COMPLETED)
            (ports if ports.done() else client).result()
        finally:
            client.cancel()
            ports.cancel()
            await asyncio.gather(client, ports, return_exceptions=True)
        await self._websocket.close()

    async def _forward_all(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for index, port in enumerate(self._ports):
                tasks.create_task(self._forward(index, port), name=f"forward-{port}")

    async def _forward(self, index: int, port: int) -> None:
        try:
            reader, writer = await connect(self._dial, port)
            await join(reader, writer, self._inboxes[index].get, lambda chunk: self._send(2 * index, chunk))
        except OSError as err:
            await self._send(2 * index + 1, f"error forwarding port {port} to pod: {err}".encode())
        finally:
            self._closed.add(index)
            while not self._inboxes[index].empty():
                self._inboxes[index].get_nowait()

    async def _take(self) -> None:
        while (message := await self._websocket.receive()) is not None:
            decoded = self._protocol.decode(message)
            if decoded is None or decoded[0] % 2 or decoded[0] // 2 >= len(self._ports) or not decoded[1]:
                continue
            index = decoded[0] // 2
            if index not in self._closed:
                await self._inboxes[index].put(decoded[1])

    async def _send(self, channel: int, data: bytes) -> None:
        await self._websocket.send(self._protocol.encode(channel, data), self._protocol.opcode)


async def connect(dial: Dialer, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The streams of a fresh connection into the pod. Raises OSError."""
    made = await dial(port)
    made.setblocking(False)
    return await asyncio.open_connection(sock=made)


async def join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    take: Callable[[], Awaitable[bytes]],
    give: Callable[[bytes], Awaitable[None]],
) -> None:
    """Carry both directions until the pod's side ends; the client's end (an empty chunk) only half-closes."""
    inward = asyncio.create_task(_inward(writer, take), name="forward-inward")
    try:
        while chunk := await reader.read(READ_BYTES):
            await give(chunk)
    finally:
        inward.cancel()
        await asyncio.gather(inward, return_exceptions=True)
        writer.close()


async def _inward(writer: asyncio.StreamWriter, take: Callable[[], Awaitable[bytes]]) -> None:
    while chunk := await take():
        writer.write(chunk)
        await writer.drain()
    writer.write_eof()
