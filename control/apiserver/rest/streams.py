"""exec and attach over WebSocket: Kubernetes' channel protocol, v5 and v4, onto the relay's messages.

Every message is binary, its first byte the channel: 0 stdin, 1 stdout, 2 stderr, 3 the final Status, 4 resize; in v5
255 with a channel's number says that this channel ended. Source: apimachinery, util/remotecommand.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from aiohttp import WSMsgType, web

from control.api import errors
from control.apiserver.rest.answers import dumps, status_json
from protos.knarr import stream_pb2 as stream

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
SUCCESS = {"metadata": {}, "status": "Success"}


Relay = Callable[[AsyncIterator[Any]], AsyncGenerator[stream.StreamResponse, None]]
"""From the client's messages after the first to the container's answers."""


async def stream_channels(request: web.Request, message: type[Any], relay: Relay) -> web.WebSocketResponse:
    """Answer ``request`` with what ``relay`` makes of the client's ``message``s, until either end is gone.

    Raises BadRequest when the request is no WebSocket upgrade.
    """
    socket = await _accept(request)
    gone = asyncio.Event()
    pump = asyncio.create_task(_pump(socket, relay(_requests(socket, message, gone))), name="channel-output")
    client = asyncio.create_task(gone.wait(), name="channel-client")
    try:
        await asyncio.wait([pump, client], return_when=asyncio.FIRST_COMPLETED)
        if pump.done() and not socket.closed:
            await socket.send_bytes(bytes([ERROR]) + dumps(pump.result()))
            await socket.close(code=1000)
    except ConnectionResetError:
        pass  # the client went while the last message was on its way
    finally:
        pump.cancel()
        client.cancel()
        await asyncio.gather(pump, client, return_exceptions=True)
    return socket


async def _accept(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(protocols=PROTOCOLS, heartbeat=30.0, max_msg_size=4 << 20)
    if not socket.can_prepare(request).ok:
        raise errors.BadRequest("this is a stream: upgrade to a WebSocket with protocol " + " or ".join(PROTOCOLS))
    await socket.prepare(request)
    return socket


async def _pump(socket: web.WebSocketResponse, answers: AsyncGenerator[stream.StreamResponse, None]) -> dict[str, Any]:
    """Send output as it comes; returns the Status that ends the stream."""
    try:
        async with aclosing(answers) as responses:
            async for response in responses:
                which = response.WhichOneof("message")
                if which == "exit":
                    return exit_status(response.exit)
                channel = STDOUT if which == "stdout" else STDERR
                await socket.send_bytes(bytes([channel]) + getattr(response, which))
    except errors.ApiError as err:
        return status_json(err)
    return status_json(errors.InternalError("the stream ended without an exit code: the node's agent may have gone"))


def exit_status(ended: stream.Exit) -> dict[str, Any]:
    """The Status of a process that ended."""
    if ended.message:
        return status_json(errors.InternalError(ended.message))
    if ended.code == 0:
        return SUCCESS
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {ended.code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(ended.code)}]},
    }


async def _requests(socket: web.WebSocketResponse, message: type[Any], gone: asyncio.Event) -> AsyncIterator[Any]:
    """The client's input as ExecRequests or AttachRequests; ``gone`` is set when the client is."""
    try:
        async for received in socket:
            if received.type is WSMsgType.BINARY and received.data:
                request = _input(message, received.data[0], received.data[1:])
                if request is not None:
                    yield request
    finally:
        gone.set()


def _input(message: type[Any], channel: int, data: bytes) -> Any | None:
    """One message from the client; None for a channel that means nothing here."""
    if channel == STDIN:
        return message(stdin=data)
    if channel == RESIZE:
        return _resize(message, data)
    if channel == CLOSE and data[:1] == bytes([STDIN]):
        return message(stdin_closed=True)
    return None


def _resize(message: type[Any], data: bytes) -> Any | None:
    try:
        size = json.loads(data)
        return message(resize=stream.TerminalSize(width=int(size["Width"]), height=int(size["Height"])))
    except (ValueError, KeyError, TypeError):
        return None
