"""The streaming server of a CRI runtime: exec, attach and port-forward by URL.

An rpc asks for a URL (:meth:`StreamingServer.exec_url` and its like) and gives the client that; whoever connects to it
first, within a minute, gets the streams. SPDY/3.1, WebSocket channels (v5, v4, and the first protocol) and SPDY inside
a WebSocket are spoken; the client chooses.

Source: CRI v1, section 6 of its semantics as crictl, critest and the kubelet rely on them; the channel protocols are
Kubernetes' remotecommand ones.
"""

import asyncio
import logging
import secrets
import socket
import ssl
from collections.abc import Callable, Sequence

from cri_runtime.service.streams.http import HEAD_BYTES, BadRequest, read_request, response
from cri_runtime.service.streams.port_forward import Dialer
from cri_runtime.service.streams.remote_command import Session
from cri_runtime.service.streams.upgrade import (
    IDLE_TIMEOUT_S,
    Command,
    Connection,
    Forward,
    Opener,
    StreamRefused,
    Target,
)

log = logging.getLogger(__name__)

__all__ = ["Dialer", "Opener", "Session", "StreamRefused", "StreamingServer", "TooManyPending"]

TOKEN_TTL_S = 60.0
PENDING = 1000
HEAD_TIMEOUT_S = 30.0


class TooManyPending(Exception):
    """1000 URLs wait for their client: CRI says ResourceExhausted."""


class Tokens:
    """URLs' tokens that wait for their client: each good once, for a minute; a bounded number."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pending: dict[str, tuple[float, str, Target]] = {}  # oldest first

    def add(self, kind: str, target: Target) -> str:
        """A fresh token. Raises TooManyPending."""
        self._expire()
        if len(self._pending) >= PENDING:
            raise TooManyPending(f"{PENDING} streams wait for their clients: try again in a minute")
        token = secrets.token_urlsafe(16)
        self._pending[token] = (self._clock() + TOKEN_TTL_S, kind, target)
        return token

    def take(self, kind: str, token: str) -> Target | None:
        """What a token stands for, once; None when it is unknown, used, expired or another kind's."""
        self._expire()
        _, meant_for, target = self._pending.get(token, (0.0, "", None))
        if target is None or meant_for != kind:
            return None
        del self._pending[token]
        return target

    def _expire(self) -> None:
        now = self._clock()
        for token, (deadline, _, _) in list(self._pending.items()):
            if deadline > now:
                break
            del self._pending[token]


class StreamingServer:
    """Listens on one address and serves the URLs it gave out. Call :meth:`start`, and :meth:`aclose` at the end."""

    def __init__(self, listen: str = "127.0.0.1:0", tls: ssl.SSLContext | None = None) -> None:
        self._host, _, port = listen.rpartition(":")
        self._port = int(port)
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._tokens = Tokens(lambda: asyncio.get_running_loop().time())

    async def start(self) -> None:
        """Listen. Raises OSError when the address cannot be bound."""
        self._server = await asyncio.start_server(
            self._accept, self._host.strip("[]"), self._port, limit=HEAD_BYTES, ssl=self._tls
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        """Stop listening and end every stream; execs die with theirs."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    @property
    def base_url(self) -> str:
        """What every URL starts with."""
        return f"{'https' if self._tls else 'http'}://{self._host}:{self._port}"

    def exec_url(self, opener: Opener, *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> str:
        """A URL for one exec. Raises TooManyPending."""
        return self._url("exec", Command(opener, tty, stdin, stdout, stderr))

    def attach_url(self, opener: Opener, *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> str:
        """A URL for one attach. Raises TooManyPending."""
        return self._url("attach", Command(opener, tty, stdin, stdout, stderr))

    def port_forward_url(self, dialer: Dialer, ports: Sequence[int] = ()) -> str:
        """A URL for one port-forward client. Raises TooManyPending."""
        return self._url("portforward", Forward(dialer, tuple(ports)))

    def _url(self, kind: str, target: Target) -> str:
        return f"{self.base_url}/{kind}/{self._tokens.add(kind, target)}"

    # --- connections -------------------------------------------------------------------------------------------------

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client whose machine vanished says nothing: the kernel asks.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        task = asyncio.get_running_loop().create_task(self._serve_connection(reader, writer), name="stream")
        self._connections.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, connection: asyncio.Task[None]) -> None:
        self._connections.discard(connection)
        if not connection.cancelled() and (err := connection.exception()):
            log.error("a stream failed", exc_info=err)

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client; what goes wrong with it is its own affair."""
        try:
            async with asyncio.timeout(HEAD_TIMEOUT_S):
                request = await read_request(reader)
            if request is not None:
                async with asyncio.timeout(IDLE_TIMEOUT_S) as idle:
                    await self._serve_request(Connection(request, reader, writer, idle))
        except* BadRequest as group:
            writer.write(response(400, body=f"{group.exceptions[0]}\n"))
        except* OSError as group:  # the client left, or took too long (TimeoutError is one)
            log.debug("stream ended", extra={"cause": repr(group.exceptions)})
        finally:
            writer.close()

    async def _serve_request(self, connection: Connection) -> None:
        request = connection.request
        _, kind, token, *_ = [*request.path.split("/"), "", ""]
        if request.method not in ("GET", "POST"):
            return connection.answer(405, [("Allow", "GET, POST")])
        target = self._tokens.take(kind, token)
        if target is None:
            return connection.answer(404, body="no such stream: its URL is good once, for a minute\n")
        if isinstance(target, Command):
            return await connection.serve_command(target)
        return await connection.serve_forward(target)
