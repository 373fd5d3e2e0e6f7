"""The server's end of a WebSocket (RFC 6455), without extensions.

Messages are bounded, pings are answered while a message is awaited, and sending waits while the peer is slow.
"""

import asyncio
import base64
import hashlib
import struct
from collections.abc import Callable

from cri_runtime.service.streams.http import Request

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN, MASKED, RESERVED = 0x80, 0x80, 0x70

MESSAGE_BYTES = 1 << 20
"""The longest message taken: clients send 32 KiB."""
CLOSE_TIMEOUT_S = 5.0

NORMAL, PROTOCOL_ERROR, TOO_BIG = 1000, 1002, 1009


class ProtocolViolation(ConnectionError):
    """The peer broke the rules; ``code`` is what the close frame says."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def is_websocket(request: Request) -> bool:
    """Whether the client asks for a WebSocket."""
    return request.has("upgrade", "websocket") and bool(request.value("sec-websocket-key"))


def accept_headers(request: Request, protocol: str | None) -> list[tuple[str, str]]:
    """The headers of the 101 that opens the WebSocket (RFC 6455, 4.2.2); ``protocol`` None sends none back."""
    digest = hashlib.sha1(request.value("sec-websocket-key").encode() + GUID).digest()
    headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", base64.b64encode(digest).decode()),
    ]
    return headers if protocol is None else [*headers, ("Sec-WebSocket-Protocol", protocol)]


def mask(data: bytes, key: bytes) -> bytes:
    """XOR with the repeated key: as two big numbers, which is fast without a C extension."""
    size = len(data)
    pad = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")


def encode_frame(opcode: int, payload: bytes) -> bytes:
    """One unmasked, unfragmented frame."""
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", FIN | opcode, size) + payload
    if size < 1 << 16:
        return struct.pack("!BBH", FIN | opcode, 126, size) + payload
    return struct.pack("!BBQ", FIN | opcode, 127, size) + payload


class WebSocket:
    """An open WebSocket. One task receives; any number send. ``touch`` is told whenever something moved."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, touch: Callable[[], None] = lambda: None
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._touch = touch
        self._closing = False

    async def receive(self) -> bytes | None:
        """The next message's payload; None once the peer has closed. Raises ConnectionError.

        Answers pings and the peer's close. A protocol violation closes with its code and counts as the end.
        """
        try:
            return await self._next_message()
        except asyncio.IncompleteReadError:
            return None
        except ProtocolViolation as err:
            await self._send_close(err.code)
            return None

    async def send(self, payload: bytes, opcode: int = BINARY) -> None:
        """Send one message, waiting while the peer is slow. Raises ConnectionError."""
        self._writer.write(encode_frame(opcode, payload))
        await self._writer.drain()
        self._touch()

    async def close(self, code: int = NORMAL) -> None:
        """Say goodbye and wait, a little, for the peer's: closing at once could destroy what is still on its way."""
        await self._send_close(code)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                while await self.receive() is not None:
                    pass
        except TimeoutError:
            pass

    async def _next_message(self) -> bytes | None:
        parts = bytearray()
        while True:
            opcode, final, payload = await self._frame(MESSAGE_BYTES - len(parts))
            self._touch()
            if opcode == CLOSE:
                await self._send_close(NORMAL)
                return None
            if opcode == PING:
                await self.send(payload, PONG)
            elif opcode in (TEXT, BINARY, CONTINUATION):
                parts += payload
                if final:
                    return bytes(parts)

    async def _frame(self, room: int) -> tuple[int, bool, bytes]:
        first, second = await self._reader.readexactly(2)
        if first & RESERVED or not second & MASKED:
            raise ProtocolViolation(PROTOCOL_ERROR, "reserved bits set, or a frame without a mask")
        size = await self._size(second & 0x7F)
        if size > room:
            raise ProtocolViolation(TOO_BIG, f"a message of more than {MESSAGE_BYTES} bytes")
        key = await self._reader.readexactly(4)
        return first & 0xF, bool(first & FIN), mask(await self._reader.readexactly(size), key)

    async def _size(self, short: int) -> int:
        if short < 126:
            return short
        return int.from_bytes(await self._reader.readexactly(2 if short == 126 else 8), "big")

    async def _send_close(self, code: int) -> None:
        if not self._closing:
            self._closing = True
            await self.send(struct.pack("!H", code), CLOSE)


class MessageStream:
    """The bytes in the messages of a WebSocket; where one message ends means nothing."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def read(self) -> bytes:
        """The next bytes; none at the end."""
        while (message := await self._websocket.receive()) is not None:
            if message:
                return message
        return b""

    async def write(self, data: bytes) -> None:
        """Send ``data`` as one message."""
        await self._websocket.send(data)
