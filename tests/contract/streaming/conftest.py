"""A streaming server in this process, and sessions that are real processes on pipes or a terminal."""

import asyncio
import fcntl
import os
import pty
import signal
import socket
import struct
import subprocess
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import aiohttp
import pytest
import uvloop

from cri_runtime.service.streaming import StreamingServer


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore:Overriding the .event_loop_policy. fixture")


class ProcessSession:
    """A command as an exec session; see ``remote_command.Session``."""

    def __init__(self, argv: list[str], tty: bool, stdin: bool) -> None:
        self.tty = tty
        self.closed = False
        self.sizes: list[tuple[int, int]] = []
        self.resized = asyncio.Event()
        self.process = self._on_terminal(argv) if tty else self._on_pipes(argv, stdin)
        for fd in {self.stdin, self.stdout, self.stderr} - {None}:
            os.set_blocking(fd, False)
        self.pidfd = os.pidfd_open(self.process.pid)

    def _on_pipes(self, argv: list[str], stdin: bool) -> subprocess.Popen[bytes]:
        ins, outs, errs = os.pipe(), os.pipe(), os.pipe()
        process = subprocess.Popen(argv, stdin=ins[0] if stdin else subprocess.DEVNULL, stdout=outs[1], stderr=errs[1])
        self.stdin: int | None = ins[1] if stdin else None
        self.stdout: int | None = outs[0]
        self.stderr: int | None = errs[0]
        for fd in (ins[0], outs[1], errs[1], *(() if stdin else (ins[1],))):
            os.close(fd)
        return process

    def _on_terminal(self, argv: list[str]) -> subprocess.Popen[bytes]:
        master, slave = pty.openpty()
        process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        self.stdin = self.stdout = master
        self.stderr = None
        return process

    def resize(self, width: int, height: int) -> None:
        assert self.stdout is not None
        fcntl.ioctl(self.stdout, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.sizes.append((width, height))
        self.resized.set()

    def close_stdin(self) -> None:
        if self.stdin is not None and not self.tty:
            os.close(self.stdin)
            self.stdin = None

    async def wait(self) -> int:
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        loop.add_reader(self.pidfd, lambda: ended.done() or ended.set_result(None))
        try:
            await ended
        finally:
            loop.remove_reader(self.pidfd)
        code = self.process.wait()
        return code if code >= 0 else 128 - code

    def close(self) -> None:
        self.closed = True
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        for fd in {self.stdin, self.stdout, self.stderr, self.pidfd} - {None}:
            os.close(fd)


@pytest.fixture(params=["asyncio", "uvloop"], autouse=True)
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """The daemon runs on uvloop, in-process clusters may run on asyncio: both must do."""
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()


@pytest.fixture
async def server(sessions: list[ProcessSession]) -> AsyncIterator[StreamingServer]:
    """A started streaming server. Closing it must close every session."""
    made = StreamingServer("127.0.0.1:0")
    await made.start()
    yield made
    await made.aclose()


@pytest.fixture
def sessions() -> Iterator[list[ProcessSession]]:
    """Every session that was opened; each must have been closed by the end of the test."""
    opened: list[ProcessSession] = []
    yield opened
    leaked = [session.process.args for session in opened if not session.closed]
    for session in opened:
        if not session.closed:
            session.close()
    assert not leaked


@pytest.fixture
def make_session() -> Callable[..., ProcessSession]:
    """Starts a command as a session: (argv, tty, stdin)."""
    return ProcessSession


@pytest.fixture
def opened() -> asyncio.Queue[ProcessSession]:
    """Sessions as they open."""
    return asyncio.Queue()


@pytest.fixture
def exec_url(
    server: StreamingServer, sessions: list[ProcessSession], opened: asyncio.Queue[ProcessSession]
) -> Callable[..., str]:
    """The URL of an exec of a real command."""

    def url(*argv: str, tty: bool = False, stdin: bool = False) -> str:
        async def opener() -> ProcessSession:
            sessions.append(ProcessSession(list(argv), tty, stdin))
            opened.put_nowait(sessions[-1])
            return sessions[-1]

        return server.exec_url(opener, tty=tty, stdin=stdin, stdout=True, stderr=not tty)

    return url


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client of somebody else's making."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """The port of a server that echoes until the client half-closes, then says ``bye`` and ends."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write(b"bye")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as made:
        yield made.sockets[0].getsockname()[1]


@pytest.fixture
def dial() -> Callable[[int], Awaitable[socket.socket]]:
    """Connects to a port of this machine, as the runtime does inside a pod."""

    async def connect(port: int) -> socket.socket:
        made = socket.socket()
        made.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
        except OSError:
            made.close()
            raise
        return made

    return connect
