"""The channels of an exec or attach over a WebSocket: each message is a channel number and that channel's bytes.

Protocols: v5 and v4 (a Status object ends the command; v5 can end stdin alone), and the first one (text on failure);
each binary, v4 and the first in base64 too, where the number is an ASCII digit in a text message.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

from cri_runtime.service.streams import status
from cri_runtime.service.streams.remote_command import ERROR, STDOUT, Input
from cri_runtime.service.streams.websocket import BINARY, TEXT, WebSocket

CLOSE_CHANNEL = 255
"""v5: the message ``255, channel`` ends the client's half of that channel."""


@dataclass(frozen=True)
class ChannelProtocol:
    """A protocol's version, and how a message is written."""

    version: int
    text: bool = False

    def encode(self, channel: int, data: bytes) -> bytes:
        """A message."""
        return b"%d" % channel + base64.b64encode(data) if self.text else bytes([channel]) + data

    def decode(self, message: bytes) -> tuple[int, bytes] | None:
        """(channel, data) of a message; None for one that is neither."""
        if not message:
            return None
        if not self.text:
            return message[0], message[1:]
        try:
            return message[0] - ord("0"), base64.b64decode(message[1:], validate=True)
        except binascii.Error:
            return None

    @property
    def opcode(self) -> int:
        """The kind of WebSocket message."""
        return TEXT if self.text else BINARY


PROTOCOLS = {
    "v5.channel.k8s.io": ChannelProtocol(5),
    "v4.channel.k8s.io": ChannelProtocol(4),
    "v4.base64.channel.k8s.io": ChannelProtocol(4, text=True),
    "channel.k8s.io": ChannelProtocol(1),
    "base64.channel.k8s.io": ChannelProtocol(1, text=True),
}


def choose(offered: Sequence[str], known: Sequence[str]) -> str | None:
    """The first protocol that the client offers and we know."""
    return next((name for name in offered if name in known), None)


class WebSocketChannels:
    """See :class:`remote_command.Channels`."""

    def __init__(self, websocket: WebSocket, protocol: ChannelProtocol) -> None:
        self._websocket = websocket
        self._protocol = protocol

    async def greet(self) -> None:
        """An empty message on an output channel tells the client that the streams are open (as kubelet does)."""
        await self.send(STDOUT, b"")

    async def receive(self) -> Input | None:
        """The client's next input; None when it has gone."""
        while (message := await self._websocket.receive()) is not None:
            decoded = self._protocol.decode(message)
            if decoded is None:
                continue
            channel, data = decoded
            if channel == CLOSE_CHANNEL and self._protocol.version >= 5 and data:
                return Input(data[0], b"", end=True)
            return Input(channel, data)
        return None

    async def send(self, channel: int, data: bytes) -> None:
        """Send output, waiting while the client is slow."""
        await self._websocket.send(self._protocol.encode(channel, data), self._protocol.opcode)

    async def finish(self, outcome: dict[str, object]) -> None:
        """Status on the error channel, then close 1000."""
        text = status.encode(outcome, self._protocol.version)
        if text:
            await self.send(ERROR, text)
        await self._websocket.close()
