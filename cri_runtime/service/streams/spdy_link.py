"""A SPDY connection in motion, and the channels of an exec or attach over it: one stream per channel."""

import asyncio
from collections import deque
from collections.abc import Mapping

from cri_runtime.service.streams import status
from cri_runtime.service.streams.remote_command import ERROR, RESIZE, STDERR, STDIN, STDOUT, Input
from cri_runtime.service.streams.spdy import (
    REFUSED_STREAM,
    Data,
    Event,
    Opened,
    Pinged,
    Reset,
    Spdy,
)
from cri_runtime.service.streams.transport import ByteStream

STREAM_TYPES = {"error": ERROR, "stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "resize": RESIZE}
CREATION_TIMEOUT_S = 30.0
"""How long the client may take to open its streams."""
CLOSE_TIMEOUT_S = 5.0


class SpdyLink:
    """The codec and the bytes it speaks over. One task reads events; any number send."""

    def __init__(self, stream: ByteStream) -> None:
        self.codec = Spdy()
        self._stream = stream
        self._events: deque[Event] = deque()

    async def next_event(self) -> Event | None:
        """The peer's next event; None at its end. Pings are answered here. Raises ConnectionError."""
        while True:
            while not self._events:
                data = await self._stream.read()
                if not data:
                    return None
                self._events.extend(self.codec.feed(data))
            event = self._events.popleft()
            if not isinstance(event, Pinged):
                return event
            await self.send(self.codec.ping(event.number))

    async def send(self, frames: bytes) -> None:
        """Send whole frames, waiting while the peer is slow."""
        await self._stream.write(frames)

    async def finish(self) -> None:
        """Say that nothing more comes, and wait, a little, for the peer to close: closing first could destroy what is
        still on its way."""
        await self.send(self.codec.go_away())
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                while await self.next_event() is not None:
                    pass
        except (TimeoutError, ConnectionError):
            pass


async def accept_channels(link: SpdyLink, expected: set[int], version: int) -> "SpdyChannels | None":
    """Wait until the client has opened a stream for each channel of ``expected``; None when it goes away instead.

    Raises TimeoutError after CREATION_TIMEOUT_S.
    """
    streams: dict[int, int] = {}
    early: deque[Event] = deque()
    async with asyncio.timeout(CREATION_TIMEOUT_S):
        while set(streams) != expected:
            event = await link.next_event()
            if event is None:
                return None
            if not isinstance(event, Opened):
                early.append(event)
                continue
            channel = channel_of(event.headers)
            if channel not in expected or channel in streams:
                await link.send(link.codec.reset(event.stream, REFUSED_STREAM))
                continue
            streams[channel] = event.stream
            await link.send(link.codec.reply(event.stream))
            if event.fin:
                early.append(Data(event.stream, b"", fin=True))
    return SpdyChannels(link, streams, version, early)


def channel_of(headers: Mapping[str, str]) -> int:
    """The channel that a stream's headers name; -1 for none that we know."""
    return STREAM_TYPES.get(headers.get("streamtype", "").lower(), -1)


class SpdyChannels:
    """See :class:`remote_command.Channels`."""

    def __init__(self, link: SpdyLink, streams: dict[int, int], version: int, early: deque[Event]) -> None:
        self._link = link
        self._streams = streams
        self._channels = {stream: channel for channel, stream in streams.items()}
        self._version = version
        self._early = early  # what came before the last stream was open

    async def receive(self) -> Input | None:
        """The client's next input; None when it has gone."""
        while True:
            event = self._early.popleft() if self._early else await self._link.next_event()
            if event is None:
                return None
            if isinstance(event, Data) and event.stream in self._channels:
                return Input(self._channels[event.stream], event.data, event.fin)
            if isinstance(event, Reset) and event.stream in self._channels:
                return Input(self._channels[event.stream], b"", end=True)

    async def send(self, channel: int, data: bytes) -> None:
        """Send output, waiting while the client is slow."""
        if channel in self._streams:
            await self._link.send(self._link.codec.data(self._streams[channel], data))

    async def finish(self, outcome: dict[str, object]) -> None:
        """Status on the error stream, the end of every stream, then the connection's."""
        text = status.encode(outcome, self._version)
        frames = [
            self._link.codec.data(stream, text if channel == ERROR else b"", fin=True)
            for channel, stream in sorted(self._streams.items())
        ]
        await self._link.send(b"".join(frames))
        await self._link.finish()
