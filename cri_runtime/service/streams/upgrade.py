"""The moment a client turns its HTTP request into streams: which protocol it gets, and what is then served over it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from cri_runtime.pod.errors import PodError
from cri_runtime.service.streams import channels, status
from cri_runtime.service.streams.channels import ChannelProtocol, WebSocketChannels
from cri_runtime.service.streams.http import Request, response
from cri_runtime.service.streams.port_forward import Dialer, SpdyForwarder, WebSocketForwarder
from cri_runtime.service.streams.remote_command import (
    ERROR,
    RESIZE,
    STDERR,
    STDIN,
    STDOUT,
    Channels,
    Session,
    serve_session,
)
from cri_runtime.service.streams.spdy_link import SpdyLink, accept_channels
from cri_runtime.service.streams.transport import SocketStream
from cri_runtime.service.streams.websocket import MessageStream, WebSocket, accept_headers, is_websocket

Opener = Callable[[], Awaitable[Session]]
"""Starts the process, or joins it, when the client is there. Raises OSError or PodError, whose text is shown."""

IDLE_TIMEOUT_S = 4 * 3600.0
"""How long nothing may move on a connection."""
SPDY_PROTOCOLS = {
    "v4.channel.k8s.io": 4,
    "v3.channel.k8s.io": 3,
    "v2.channel.k8s.io": 2,
    "channel.k8s.io": 1,
}
PORT_FORWARD = "portforward.k8s.io"
TUNNEL = "SPDY/3.1+portforward.k8s.io"
"""The WebSocket protocol whose messages carry a SPDY connection's bytes."""


class StreamRefused(PodError):
    """The session cannot be had any more; the text is for the client."""


@dataclass(frozen=True)
class Command:
    """What an exec or attach URL stands for."""

    open: Opener
    tty: bool
    stdin: bool
    stdout: bool
    stderr: bool

    def channels(self, version: int) -> set[int]:
        """The channels that a SPDY client opens: error, each one asked for, and (since v3) resize with a terminal."""
        wanted = {STDIN: self.stdin, STDOUT: self.stdout, STDERR: self.stderr and not self.tty}
        resize = {RESIZE} if self.tty and version >= 3 else set()
        return {ERROR, *(channel for channel, asked in wanted.items() if asked), *resize}


@dataclass(frozen=True)
class Forward:
    """What a port-forward URL stands for; ``ports`` only for WebSocket channels, SPDY streams name theirs."""

    dial: Dialer
    ports: Sequence[int]


Target = Command | Forward


@dataclass
class Connection:
    """A client at the moment it asks for its upgrade."""

    request: Request
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    idle: asyncio.Timeout

    def answer(self, status_code: int, headers: Iterable[tuple[str, str]] = (), body: str = "") -> None:
        """Answer the request."""
        self.writer.write(response(status_code, headers, body))

    def touch(self) -> None:
        """Something moved: the idle time starts again."""
        self.idle.reschedule(asyncio.get_running_loop().time() + IDLE_TIMEOUT_S)

    async def serve_command(self, command: Command) -> None:
        """Upgrade, and carry an exec or attach."""
        opened = await self._command_channels(command)
        if opened is None:
            return
        try:
            session = await command.open()
        except (OSError, PodError) as err:
            return await opened.finish(status.failed(str(err)))
        await serve_session(session, opened)

    async def serve_forward(self, forward: Forward) -> None:
        """Upgrade, and carry port-forward connections."""
        if not is_websocket(self.request):
            if self._upgrade_to_spdy([PORT_FORWARD]):
                await SpdyForwarder(SpdyLink(self._raw()), forward.dial).serve()
            return
        offered = self.request.values("sec-websocket-protocol")
        chosen = channels.choose(offered, [TUNNEL, *channels.PROTOCOLS])
        if offered and chosen is None:
            return self._refuse_protocols(offered, [TUNNEL, *channels.PROTOCOLS])
        if chosen == TUNNEL:
            websocket = self._upgrade_to_websocket(chosen)
            return await SpdyForwarder(SpdyLink(MessageStream(websocket)), forward.dial).serve()
        if not forward.ports:
            return self.answer(400, body="a port-forward over WebSocket channels needs ports in its rpc\n")
        protocol = channels.PROTOCOLS.get(chosen or "", ChannelProtocol(1))
        websocket = self._upgrade_to_websocket(chosen)
        return await WebSocketForwarder(websocket, protocol, forward.ports, forward.dial).serve()

    async def _command_channels(self, command: Command) -> Channels | None:
        if is_websocket(self.request):
            offered = self.request.values("sec-websocket-protocol")
            chosen = channels.choose(offered, list(channels.PROTOCOLS))
            if offered and chosen is None:
                self._refuse_protocols(offered, list(channels.PROTOCOLS))
                return None
            protocol = channels.PROTOCOLS.get(chosen or "", ChannelProtocol(1))
            opened = WebSocketChannels(self._upgrade_to_websocket(chosen), protocol)
            await opened.greet()
            return opened
        chosen = self._upgrade_to_spdy(list(SPDY_PROTOCOLS))
        if chosen is None:
            return None
        version = SPDY_PROTOCOLS[chosen]
        link = SpdyLink(self._raw())
        return await accept_channels(link, command.channels(version), version)

    def _raw(self) -> SocketStream:
        return SocketStream(self.reader, self.writer, self.touch)

    def _upgrade_to_websocket(self, protocol: str | None) -> WebSocket:
        self.answer(101, accept_headers(self.request, protocol))
        return WebSocket(self.reader, self.writer, self.touch)

    def _upgrade_to_spdy(self, known: Sequence[str]) -> str | None:
        """Answer the upgrade and return the protocol chosen, or refuse it."""
        if not self.request.has("upgrade", "SPDY/3.1"):
            self.answer(400, body="this URL is for streaming: upgrade to WebSocket or SPDY/3.1\n")
            return None
        offered = self.request.values("x-stream-protocol-version")
        if not offered:
            self.answer(400, body="the header X-Stream-Protocol-Version is missing\n")
            return None
        chosen = channels.choose(offered, known)
        if chosen is None:
            self._refuse_protocols(offered, known)
            return None
        upgrade = [("Upgrade", "SPDY/3.1"), ("Connection", "Upgrade"), ("X-Stream-Protocol-Version", chosen)]
        self.answer(101, upgrade)
        return chosen

    def _refuse_protocols(self, offered: Sequence[str], known: Sequence[str]) -> None:
        accepted = [("X-Accepted-Stream-Protocol-Versions", name) for name in known]
        text = f"none of the protocols {', '.join(offered)} is spoken here; these are: {', '.join(known)}\n"
        self.answer(403, accepted, text)
