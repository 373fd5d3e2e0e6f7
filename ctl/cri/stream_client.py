"""The client's end of the runtime's streaming URLs, over WebSocket channels (v5, else v4)."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ctl.errors import CtlError
from ctl.terminal import raw_terminal, read_input, window_sizes, write_all

if TYPE_CHECKING:
    from aiohttp import ClientWebSocketResponse

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
CLOSE_STDIN = bytes([255, STDIN])
V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
RAW_CHUNK_BYTES = 32 << 10


class StreamTLS:
    """How an https streaming URL is trusted: as crictl, not at all unless files are given."""

    def __init__(self, tls_ca: str = "", tls_cert: str = "", tls_key: str = "", tls_sni: str = "localhost") -> None:
        if bool(tls_cert) != bool(tls_key) or (tls_ca and not tls_cert):
            raise CtlError("--tls-cert and --tls-key go together; --tls-ca needs both")
        self.context: ssl.SSLContext | bool = False
        self.server_name = None
        if tls_cert:
            self.context = ssl.create_default_context(cafile=tls_ca or None)
            self.context.load_cert_chain(tls_cert, tls_key)
            self.server_name = tls_sni


@asynccontextmanager
async def connected(url: str, protocols: tuple[str, ...], tls: StreamTLS) -> AsyncIterator["ClientWebSocketResponse"]:
    """A WebSocket to a streaming URL. Raises CtlError when it is refused."""
    import aiohttp

    try:
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(
                url, protocols=protocols, max_msg_size=0, ssl=tls.context, server_hostname=tls.server_name
            ) as ws,
        ):
            yield ws
    except aiohttp.WSServerHandshakeError as err:
        raise CtlError(f"the runtime refused the stream {url}: {err.status} {err.message}") from err
    except aiohttp.ClientConnectionError as err:
        raise CtlError(f"the stream {url} broke: {err}") from err


async def join_command(url: str, stdin: bool, tty: bool, tls: StreamTLS) -> int:
    """Join our standard streams to an exec or attach; returns the command's exit code.

    Raises CtlError when the stream breaks or the runtime tells a failure that is no exit code.
    """
    async with connected(url, (V5, V4), tls) as ws:
        with raw_terminal(0 if tty and stdin else -1):
            return await _carry(ws, stdin, tty)


async def _carry(ws: "ClientWebSocketResponse", stdin: bool, tty: bool) -> int:
    senders = [asyncio.create_task(_send_input(ws))] if stdin else []
    if tty:
        senders.append(asyncio.create_task(_send_sizes(ws)))
    try:
        return await _receive(ws)
    finally:
        for sender in senders:
            sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)


async def _send_input(ws: "ClientWebSocketResponse") -> None:
    async for chunk in read_input(0):
        await ws.send_bytes(bytes([STDIN]) + chunk)
    if ws.protocol == V5:  # v4 has no way to say it
        await ws.send_bytes(CLOSE_STDIN)


async def _send_sizes(ws: "ClientWebSocketResponse") -> None:
    async for size in window_sizes(1):
        text = json.dumps({"Width": size.width, "Height": size.height})
        await ws.send_bytes(bytes([RESIZE]) + text.encode())


async def _receive(ws: "ClientWebSocketResponse") -> int:
    status: dict[str, Any] | None = None
    async for message in ws:
        data = message.data if isinstance(message.data, bytes) else b""
        channel, payload = data[:1], data[1:]
        if channel == bytes([STDOUT]):
            write_all(1, payload)
        elif channel == bytes([STDERR]):
            write_all(2, payload)
        elif channel == bytes([ERROR]) and payload:
            status = json.loads(payload)
    return exit_code_of(status)


def exit_code_of(status: dict[str, Any] | None) -> int:
    """What the error channel's Status says. Raises CtlError when it says anything but how the command ended."""
    if status is None:
        raise CtlError("the stream ended before the command did")
    if status.get("status") == "Success":
        return 0
    for cause in (status.get("details") or {}).get("causes", ()):
        if status.get("reason") == "NonZeroExitCode" and cause.get("reason") == "ExitCode":
            return int(cause["message"])
    raise CtlError(status.get("message") or json.dumps(status))


async def forward_connection(
    url: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tls: StreamTLS
) -> None:
    """Carry one local connection over a port-forward URL with one port. Raises CtlError with the pod's complaint."""
    async with connected(url, (V4,), tls) as ws:
        sending = asyncio.create_task(_send_connection(ws, reader))
        try:
            complaint = await _receive_connection(ws, writer)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    if complaint:
        raise CtlError(complaint)


async def _send_connection(ws: "ClientWebSocketResponse", reader: asyncio.StreamReader) -> None:
    while chunk := await reader.read(RAW_CHUNK_BYTES):
        await ws.send_bytes(b"\0" + chunk)
    # The protocol cannot half-close: the answer to what was sent may still come.


async def _receive_connection(ws: "ClientWebSocketResponse", writer: asyncio.StreamWriter) -> str:
    seen: set[int] = set()
    complaint = b""
    async for message in ws:
        channel, payload = message.data[0], message.data[1:]
        if channel not in seen:  # each channel's first message is the port's number
            seen.add(channel)
            payload = payload[2:]
        if channel == 0:
            writer.write(payload)
            await writer.drain()
        else:
            complaint += payload
    return complaint.decode(errors="replace")
