"""The daemon's side of the shim's protocol: the zygote, and one connection per supervisor."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cri_runtime.linux.sockets import bind_unix, connect_unix
from cri_runtime.pod.errors import ShimFailed, SupervisorGone
from cri_runtime.shim import messages
from cri_runtime.shim.supervisor import SOCKET

Answer = tuple[dict[str, Any], list[int]]

SHIM = Path(__file__).parent.parent / "shim"


class Connection:
    """Requests, answers and events over one socket. ``on_event(message)``; ``on_end()`` when the peer is gone."""

    def __init__(
        self, sock: socket.socket, on_event: Callable[[dict[str, Any]], None], on_end: Callable[[], None]
    ) -> None:
        sock.setblocking(False)
        self._socket, self._on_event, self._on_end = sock, on_event, on_end
        self._reader = messages.Reader(sock)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._sequence = 0
        self._sending = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._readable)

    def expect(self, sequence: int) -> "asyncio.Future[Answer]":
        """The answer that will carry this number."""
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting[sequence] = future
        return future

    async def request(self, op: str, fds: Sequence[int] = (), **fields: Any) -> Answer:
        """Ask and wait for the answer; ``fds`` stay the caller's. Raises ShimFailed, SupervisorGone."""
        self._sequence += 1
        sequence = self._sequence  # others ask meanwhile, and count on
        answer = self.expect(sequence)
        try:
            await self._send({"op": op, "seq": sequence, **fields}, fds)
            return await answer
        finally:
            self._waiting.pop(sequence, None)

    async def _send(self, message: dict[str, Any], fds: Sequence[int]) -> None:
        data = messages.encode({**message, "fds": len(fds)} if fds else message)
        async with self._sending:
            try:
                sent = socket.send_fds(self._socket, [data], list(fds)) if fds else self._socket.send(data)
                if sent < len(data):
                    await self._loop.sock_sendall(self._socket, data[sent:])
            except OSError as err:
                self.close()
                raise SupervisorGone from err

    def close(self) -> None:
        """End the connection; who waits gets SupervisorGone. Idempotent."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._reader.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(SupervisorGone())
                future.exception()  # whoever was cancelled meanwhile will not fetch it

    def _readable(self) -> None:
        try:
            received = self._reader.receive()
        except BlockingIOError:
            return
        except (EOFError, OSError, ValueError, messages.ProtocolError):
            self.close()
            self._on_end()
            return
        for message, fds in received:
            self._dispatch(message, fds)

    def _dispatch(self, message: dict[str, Any], fds: list[int]) -> None:
        if "event" in message:
            self._on_event(message)
            return
        future = self._waiting.get(message["seq"])
        if future is None or future.done():
            for fd in fds:
                os.close(fd)
        elif "error" in message:
            future.set_exception(ShimFailed(**message["error"]))
        else:
            future.set_result((message["ok"], fds))


class Zygote:
    """The warm parent of supervisors. Start it before anything makes threads; it is started again when it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def start(self) -> None:
        """Start the process. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            command = [sys.executable, "-I", "-S", "-X", "utf8", str(SHIM)]
            self._process = subprocess.Popen(command, stdin=theirs.fileno(), close_fds=True, cwd="/", env={})
        self._connection = Connection(ours, lambda event: None, self._ended)

    def _ended(self) -> None:
        self._connection = None

    @property
    def pid(self) -> int:
        """Its process id; 0 before it is started."""
        return self._process.pid if self._process else 0

    async def fork(self, pod: dict[str, Any], connection: socket.socket, listener: socket.socket) -> int:
        """Fork a supervisor with these sockets; returns its pid. Raises ShimFailed."""
        if self._connection is None:
            self.close()
            self.start()
        assert self._connection is not None
        ok, _ = await self._connection.request("pod", (connection.fileno(), listener.fileno()), pod=pod)
        return int(ok["pid"])

    def close(self) -> None:
        """End it; supervisors stay."""
        if self._connection:
            self._connection.close()
            self._connection = None
        if self._process:
            self._process.wait()
            self._process = None


class Supervisor:
    """One pod's supervisor."""

    def __init__(self, connection: Connection, pid: int = 0) -> None:
        self.connection = connection
        self.pid = pid

    @staticmethod
    async def start(
        zygote: Zygote,
        pod: dict[str, Any],
        state: Path,
        on_event: Callable[[dict[str, Any]], None],
        on_end: Callable[[], None],
    ) -> "Supervisor":
        """Start the supervisor of a pod; its namespaces exist on return. Raises ShimFailed, OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs, bind_unix(str(state), SOCKET) as listener:
            connection = Connection(ours, on_event, on_end)
            born = connection.expect(0)
            try:
                await zygote.fork(pod, theirs, listener)
                theirs.close()  # or a supervisor that dies early would never be noticed
                ok, _ = await born
            except BaseException:
                connection.close()
                raise
        return Supervisor(connection, int(ok["pid"]))

    @staticmethod
    async def find(
        state: Path, on_event: Callable[[dict[str, Any]], None], on_end: Callable[[], None]
    ) -> "tuple[Supervisor, dict[str, Any]] | None":
        """The supervisor that an earlier daemon started, and its containers' reports; None when it is dead."""
        try:
            sock = connect_unix(str(state), SOCKET)
        except OSError:
            return None
        supervisor = Supervisor(Connection(sock, on_event, on_end))
        try:
            ok, _ = await supervisor.connection.request("state")
        except ShimFailed:
            return None
        supervisor.pid = int(ok["pid"])
        return supervisor, ok["containers"]

    async def request(self, op: str, fds: Sequence[int] = (), **fields: Any) -> Answer:
        """See :meth:`Connection.request`."""
        return await self.connection.request(op, fds, **fields)

    async def quit(self) -> None:
        """Tell it to undo its mounts and end, kill it if it does not; returns when it is gone."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self.connection.close()
            return
        try:
            await self.request("quit")
        except ShimFailed:
            _kill(pidfd)
        finally:
            self.connection.close()
        try:
            await wait_readable(pidfd)
        finally:
            os.close(pidfd)


def _kill(pidfd: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass


async def wait_readable(fd: int) -> None:
    """Wait until ``fd`` is readable; a pidfd is when its process has ended."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


def _settle(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
