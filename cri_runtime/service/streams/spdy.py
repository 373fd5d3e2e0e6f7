"""SPDY/3.1's framing, as far as Kubernetes' clients speak it: a pure codec, bytes in and events out.

No flow control: these clients neither send nor obey WINDOW_UPDATE, so backpressure is the connection's.
Header blocks are one zlib stream per direction for the life of the connection: every block must be decoded, in order.

Source: draft-mbelshe-httpbis-spdy-00 with the 3.1 amendments; names of frames and fields are the draft's.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cri_runtime.service.streams.spdy_dictionary import DICTIONARY

VERSION = 3
SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY, HEADERS = 1, 2, 3, 6, 7, 8
FLAG_FIN = 0x01
REFUSED_STREAM, CANCEL = 3, 5

FRAME_BYTES = 1 << 20
"""The longest frame taken: clients send 32 KiB."""
HEADER_BLOCK_BYTES = 64 << 10
"""The longest header block, decompressed."""


class SpdyError(ConnectionError):
    """The peer's bytes are no SPDY/3.1."""


@dataclass(frozen=True)
class Opened:
    """The peer opened a stream; ``fin``: and will send nothing on it."""

    stream: int
    headers: Mapping[str, str]
    fin: bool = False


@dataclass(frozen=True)
class Replied:
    """The peer accepted our stream."""

    stream: int
    headers: Mapping[str, str]
    fin: bool = False


@dataclass(frozen=True)
class Data:
    """Bytes on a stream; ``fin``: and no more follow."""

    stream: int
    data: bytes
    fin: bool = False


@dataclass(frozen=True)
class Reset:
    """The peer gave up a stream."""

    stream: int
    status: int


@dataclass(frozen=True)
class Pinged:
    """A ping, to be sent back as it is."""

    number: int


@dataclass(frozen=True)
class GoneAway:
    """The peer opens no more streams."""


Event = Opened | Replied | Data | Reset | Pinged | GoneAway


class Spdy:
    """One end of a connection: :meth:`feed` decodes what arrives, the other methods encode what to send."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that ``data`` completes. Raises SpdyError."""
        self._buffer += data
        while len(self._buffer) >= 8:
            size = int.from_bytes(self._buffer[5:8], "big")
            if size > FRAME_BYTES:
                raise SpdyError(f"a frame of {size} bytes")
            if len(self._buffer) < 8 + size:
                return
            head, payload = bytes(self._buffer[:8]), bytes(self._buffer[8 : 8 + size])
            del self._buffer[: 8 + size]
            event = self._decode(head, payload)
            if event is not None:
                yield event

    def _decode(self, head: bytes, payload: bytes) -> Event | None:
        fin = bool(head[4] & FLAG_FIN)
        if not head[0] & 0x80:
            return Data(int.from_bytes(head[:4], "big"), payload, fin)
        version, kind = struct.unpack_from("!HH", head)
        if version & 0x7FFF != VERSION:
            raise SpdyError(f"version {version & 0x7FFF}")
        try:
            return self._decode_control(kind, payload, fin)
        except struct.error as err:
            raise SpdyError(f"frame of type {kind} is too short") from err

    def _decode_control(self, kind: int, payload: bytes, fin: bool) -> Event | None:
        if kind == SYN_STREAM:
            stream, _, _ = struct.unpack_from("!IIH", payload)
            return Opened(stream, self._decode_headers(payload[10:]), fin)
        if kind in (SYN_REPLY, HEADERS):
            (stream,) = struct.unpack_from("!I", payload)
            headers = self._decode_headers(payload[4:])
            return Replied(stream, headers, fin) if kind == SYN_REPLY else Data(stream, b"", fin)
        if kind == RST_STREAM:
            return Reset(*struct.unpack_from("!II", payload))
        if kind == PING:
            return Pinged(*struct.unpack_from("!I", payload))
        return GoneAway() if kind == GOAWAY else None

    def _decode_headers(self, block: bytes) -> dict[str, str]:
        try:
            plain = self._inflate.decompress(block, HEADER_BLOCK_BYTES)
        except zlib.error as err:
            raise SpdyError(f"header block: {err}") from err
        if self._inflate.unconsumed_tail:
            raise SpdyError("a header block that is too long")
        (count,) = struct.unpack_from("!I", plain)
        words = _words(plain[4:], 2 * count)
        return {name: value.split("\0")[0] for name, value in zip(words, words, strict=True)}

    def open(self, stream: int, headers: Mapping[str, str], fin: bool = False) -> bytes:
        """Open a stream; ``stream`` is odd for a client."""
        body = struct.pack("!IIH", stream, 0, 0) + self._encode_headers(headers)
        return _control(SYN_STREAM, body, FLAG_FIN if fin else 0)

    def reply(self, stream: int, headers: Mapping[str, str] | None = None) -> bytes:
        """Accept a stream."""
        return _control(SYN_REPLY, struct.pack("!I", stream) + self._encode_headers(headers or {}))

    @staticmethod
    def data(stream: int, data: bytes, fin: bool = False) -> bytes:
        """Bytes on a stream, and with ``fin`` its end."""
        return struct.pack("!II", stream, (FLAG_FIN if fin else 0) << 24 | len(data)) + data

    @staticmethod
    def reset(stream: int, status: int = CANCEL) -> bytes:
        """Give up a stream."""
        return _control(RST_STREAM, struct.pack("!II", stream, status))

    @staticmethod
    def ping(number: int) -> bytes:
        """A ping, or its answer."""
        return _control(PING, struct.pack("!I", number))

    @staticmethod
    def go_away(last_stream: int = 0) -> bytes:
        """Open no more streams."""
        return _control(GOAWAY, struct.pack("!II", last_stream, 0))

    def _encode_headers(self, headers: Mapping[str, str]) -> bytes:
        plain = struct.pack("!I", len(headers))
        for word in (word for pair in headers.items() for word in pair):
            plain += struct.pack("!I", len(word.encode())) + word.encode()
        return self._deflate.compress(plain) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def _control(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("!HHI", 0x8000 | VERSION, kind, flags << 24 | len(body)) + body


def _words(plain: bytes, count: int) -> Iterator[str]:
    for _ in range(count):
        (size,) = struct.unpack_from("!I", plain)
        if len(plain) < 4 + size:
            raise SpdyError("a header block that ends early")
        yield plain[4 : 4 + size].decode("utf-8", "replace")
        plain = plain[4 + size :]
