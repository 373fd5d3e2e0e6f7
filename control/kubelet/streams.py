"""Interactive streams: from a CRI streaming URL (WebSocket, remotecommand v5 or v4) to the messages of the node API.

Frames carry a channel byte: 0 stdin, 1 stdout, 2 stderr, 3 error (one JSON Status at the end), 4 resize, and in v5
255 to close a channel. ``exit_of`` is pure.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING

from control.kubelet.http import Http, http_error
from protos.knarr import stream_pb2 as pb

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger(__name__)

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255

Input = pb.ExecRequest | pb.AttachRequest


class StreamFailed(Exception):
    """The runtime's streaming server refused or broke the stream."""


def exit_of(status: bytes) -> pb.Exit:
    """How the process ended, from the Status on the error channel."""
    try:
        told = json.loads(status)
    except ValueError:
        return pb.Exit(code=1, message=status.decode(errors="replace"))
    if told.get("status") == "Success":
        return pb.Exit(code=0)
    causes = (told.get("details") or {}).get("causes") or []
    codes = [cause.get("message", "") for cause in causes if cause.get("reason") == "ExitCode"]
    if told.get("reason") == "NonZeroExitCode" and codes and codes[0].isdigit():
        return pb.Exit(code=int(codes[0]))
    return pb.Exit(code=1, message=told.get("message") or "the stream ended with an error")


async def remote_command(
    http: Http, url: str, requests: AsyncIterator[Input], stdin: bool
) -> AsyncGenerator[pb.StreamResponse, None]:
    """Relay ``requests`` to the process behind ``url`` and yield what it says, its exit last. Raises StreamFailed.

    ``stdin``: the process reads input; otherwise input messages are dropped.
    """
    try:
        async with http.ws_connect(url, protocols=PROTOCOLS, max_msg_size=0, heartbeat=30, ssl=False) as socket:
            sending = asyncio.create_task(_send(socket, requests, stdin), name="stream-input")
            try:
                async for message in _receive(socket):
                    yield message
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
    except http_error() as err:
        raise StreamFailed(f"the runtime's stream failed: {err}") from err


async def _receive(socket: "aiohttp.ClientWebSocketResponse") -> AsyncGenerator[pb.StreamResponse, None]:
    async for message in socket:
        data = message.data if isinstance(message.data, bytes) else str(message.data).encode()
        if len(data) < 2:
            continue  # the empty first message of older servers
        channel, body = data[0], data[1:]
        if channel == STDOUT:
            yield pb.StreamResponse(stdout=body)
        elif channel == STDERR:
            yield pb.StreamResponse(stderr=body)
        elif channel == ERROR:
            yield pb.StreamResponse(exit=exit_of(body))
            return


async def _send(socket: "aiohttp.ClientWebSocketResponse", requests: AsyncIterator[Input], stdin: bool) -> None:
    async for request in requests:
        kind = request.WhichOneof("message")
        if kind == "stdin" and stdin:
            await socket.send_bytes(bytes([STDIN]) + request.stdin)
        elif kind == "stdin_closed" and stdin:
            await _close_stdin(socket)
        elif kind == "resize":
            size = {"Width": request.resize.width, "Height": request.resize.height}
            await socket.send_bytes(bytes([RESIZE]) + json.dumps(size).encode())


async def _close_stdin(socket: "aiohttp.ClientWebSocketResponse") -> None:
    """End of input. v4 cannot say it: there the process only learns of it when the whole stream closes."""
    if socket.protocol == PROTOCOLS[0]:
        await socket.send_bytes(bytes([CLOSE, STDIN]))


async def port_forward(
    http: Http, url: str, requests: AsyncIterator[pb.PortForwardRequest]
) -> AsyncGenerator[pb.PortForwardResponse, None]:
    """Relay one connection through ``url``. Channel 0 is data, 1 errors; the first message on each is the port number.

    Raises StreamFailed.
    """
    try:
        async with http.ws_connect(url, protocols=PROTOCOLS[1:], max_msg_size=0, heartbeat=30, ssl=False) as socket:
            sending = asyncio.create_task(_send_data(socket, requests), name="forward-input")
            try:
                async for body in _receive_data(socket):
                    yield pb.PortForwardResponse(data=body)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
    except http_error() as err:
        raise StreamFailed(f"port forward failed: {err}") from err


async def _receive_data(socket: "aiohttp.ClientWebSocketResponse") -> AsyncIterator[bytes]:
    opened: set[int] = set()
    async for message in socket:
        data = message.data if isinstance(message.data, bytes) else str(message.data).encode()
        if not data:
            continue
        channel, body = data[0], data[1:]
        if channel not in opened:
            opened.add(channel)  # two bytes: the port
            body = body[2:]
        if channel == 1 and body:
            raise StreamFailed(body.decode(errors="replace"))
        if channel == 0 and body:
            yield body


async def _send_data(socket: "aiohttp.ClientWebSocketResponse", requests: AsyncIterator[pb.PortForwardRequest]) -> None:
    async for request in requests:
        kind = request.WhichOneof("message")
        if kind == "data":
            await socket.send_bytes(b"\0" + request.data)
        elif kind == "closed":
            return  # the channel protocol has no half-close: answers still flow until the client ends the call
