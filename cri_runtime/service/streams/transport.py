"""A duplex stream of bytes, whatever carries it: a TCP connection, or the messages of a WebSocket."""

import asyncio
from collections.abc import Callable
from typing import Protocol

READ_BYTES = 64 << 10


class ByteStream(Protocol):
    """Bytes in, bytes out, with backpressure both ways."""

    async def read(self) -> bytes:
        """The next bytes; none at the end."""

    async def write(self, data: bytes) -> None:
        """Send ``data`` in one piece, waiting while the peer is slow. Raises ConnectionError."""


class SocketStream:
    """The bytes of a connection. ``touch`` is told whenever some moved."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, touch: Callable[[], None] = lambda: None
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._touch = touch

    async def read(self) -> bytes:
        """The next bytes; none at the end."""
        data = await self._reader.read(READ_BYTES)
        self._touch()
        return data

    async def write(self, data: bytes) -> None:
        """Send ``data``, waiting while more than the transport's limit is on its way."""
        self._writer.write(data)
        await self._writer.drain()
        self._touch()
