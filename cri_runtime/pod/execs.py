"""Running commands in containers, attaching to them, and reaching ports of pods."""

import asyncio
import errno
import fcntl
import os
import secrets
import signal
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cri_runtime.linux.constants import CLONE_NEWNET, TIOCSWINSZ
from cri_runtime.linux.namespace import setns
from cri_runtime.pod import machine
from cri_runtime.pod.client import Supervisor
from cri_runtime.pod.errors import ExecTimeout, InvalidConfig, ShimFailed, StartFailed, SupervisorGone, WrongState
from cri_runtime.pod.world import Container, Sandbox, World
from cri_runtime.shim.supervisor import NETNS

OUTPUT_MAX = 16 << 20
"""Bytes ExecSync keeps of each stream; the rest is read and dropped."""
ANSWER_MAX = OUTPUT_MAX - 4096
"""Bytes of both together in an answer: CRI's clients refuse messages above 16 MiB."""
CHUNK_BYTES = 64 << 10
KILLED = 128 + signal.SIGKILL


@dataclass(frozen=True)
class Result:
    """What a command did."""

    stdout: bytes
    stderr: bytes
    exit_code: int


class Collector:
    """Reads a pipe to its end, keeping the first 16 MiB."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._kept = bytearray()
        self._loop.add_reader(fd, self._read)

    def _read(self) -> bool:
        try:
            data = os.read(self._fd, CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._fd)
            return False
        self._kept += data[: OUTPUT_MAX - len(self._kept)]
        return True

    def finish(self) -> bytes:
        """What came, with what waits in the pipe now; closes it. Nobody who still holds its other end is waited for."""
        while self._read():
            pass
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        return bytes(self._kept)


def fit(stdout: bytes, stderr: bytes) -> tuple[bytes, bytes]:
    """Pure: cut both so that they fit into one answer; stderr yields down to half of it."""
    stderr = stderr[: max(ANSWER_MAX - len(stdout), ANSWER_MAX // 2)]
    return stdout[: ANSWER_MAX - len(stderr)], stderr


class Execs:
    """Commands in running containers."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._namespaces = ThreadPoolExecutor(1, thread_name_prefix="port-forward")

    def close(self) -> None:
        """Let go."""
        os.close(self._null)
        self._namespaces.shutdown()

    async def sync(self, name: str, command: list[str], timeout_s: float) -> Result:
        """Run to the end; 0 waits for ever. Raises NotFound, WrongState, InvalidConfig, StartFailed, ExecTimeout."""
        container, sandbox = self._running(name, command)
        stdout_read, stdout_write = os.pipe2(os.O_CLOEXEC)
        stderr_read, stderr_write = os.pipe2(os.O_CLOEXEC)
        outputs = Collector(stdout_read), Collector(stderr_read)
        process = Process(sandbox, secrets.token_hex(8))
        try:
            try:
                await process.start(container, command, False, (self._null, stdout_write, stderr_write))
            finally:
                os.close(stdout_write)
                os.close(stderr_write)
            async with asyncio.timeout(timeout_s or None):
                code = await process.wait()
        except TimeoutError:
            await asyncio.shield(process.kill())
            raise ExecTimeout(f"command {command[0]!r} timed out after {timeout_s:g} s and was killed") from None
        except asyncio.CancelledError:
            await asyncio.shield(process.kill())
            raise
        finally:
            process.forget()
            stdout, stderr = (output.finish() for output in outputs)
        return Result(*fit(stdout, stderr), code)

    def require_running(self, name: str) -> Container:
        """Raises NotFound, WrongState."""
        container = self._world.container(name)
        machine.require_running(container.record)
        return container

    def _running(self, name: str, command: list[str]) -> tuple[Container, Sandbox]:
        if not command:
            raise InvalidConfig("cmd", "must name a program")
        container = self.require_running(name)
        return container, self._world.sandbox(container.record.sandbox_id)

    async def open(
        self, name: str, command: list[str], *, tty: bool, stdin: bool, stdout: bool, stderr: bool
    ) -> "ExecSession":
        """Start a command with streams. Raises as :meth:`sync`."""
        container, sandbox = self._running(name, command)
        process = Process(sandbox, secrets.token_hex(8))
        if tty:
            master = await process.start(container, command, True, ())
            os.set_blocking(master, False)
            ends = (master if stdin else None, master if stdout else None, None)
            return ExecSession(self._world, process, ends, master)
        ours, theirs = _pipes((stdin, stdout, stderr))
        try:
            await process.start(container, command, False, theirs)
        except BaseException:
            _close_all(fd for fd in ours if fd is not None)
            process.forget()
            raise
        finally:
            _close_all(theirs)
        return ExecSession(self._world, process, ours, -1)

    async def attach(self, name: str, *, stdin: bool, stdout: bool, stderr: bool) -> "AttachSession":
        """Connect to a container's streams, from now on. Raises NotFound, WrongState, ShimFailed."""
        container = self.require_running(name)
        sandbox = self._world.sandbox(container.record.sandbox_id)
        tty = container.record.tty
        wanted = (stdout, stderr and not tty)
        reads, writes = _output_pipes(wanted)
        want_input = tty or (stdin and container.record.stdin)  # a terminal is also what a resize needs
        try:
            ok, fds = await sandbox.require_supervisor().request(
                "attach", writes, container=container.record.id, stdout=wanted[0], stderr=wanted[1], stdin=want_input
            )
        except BaseException:
            _close_all(fd for fd in reads if fd is not None)
            raise
        finally:
            _close_all(writes)
        control = fds[0] if fds else -1
        if control >= 0:
            os.set_blocking(control, False)
        ends = (control if stdin and control >= 0 else None, *reads)
        return AttachSession(container, ends, control if control >= 0 else -1, bool(ok["terminal"]))

    def attach_early(self, container: Container, *, stdout: bool, stderr: bool) -> "AttachSession":
        """Connect to the outputs of a CREATED container, from their first byte on; nothing is dropped when the client
        is slow: the container waits. A session nobody takes within a minute is closed."""
        if container.early:
            raise WrongState(f'container "{container.record.id[:13]}" has a client that waits for its start already')
        wanted = (stdout, stderr and not container.record.tty)
        reads, writes = _output_pipes(wanted)
        names = [name for name, want in zip(("stdout", "stderr"), wanted, strict=True) if want]
        container.early = dict(zip(names, writes, strict=True))
        return AttachSession(container, (None, *reads), -1, False)

    async def dial(self, sandbox_name: str, port: int) -> socket.socket:
        """A connection to ``port`` on localhost inside the pod, 127.0.0.1 first, then ::1. Raises NotFound, WrongState,
        OSError."""
        sandbox = self._world.sandbox(sandbox_name)
        machine.require_ready(sandbox.record)
        netns = self._world.sandbox_state(sandbox.record.id) / NETNS
        path = "/proc/self/ns/net" if sandbox.record.host_network else str(netns)
        loop = asyncio.get_running_loop()
        failure: OSError | None = None
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            try:
                connection = await loop.run_in_executor(self._namespaces, _socket_in, path, family)
                connection.setblocking(False)
                await loop.sock_connect(connection, (address, port))
                return connection
            except OSError as err:
                failure = failure or err
        raise OSError(
            failure.errno if failure else errno.ECONNREFUSED,
            f"cannot reach port {port} in pod sandbox {sandbox.record.id[:13]}: {failure}",
        )


class Process:
    """One further process of a container, by way of its pod's supervisor."""

    def __init__(self, sandbox: Sandbox, name: str) -> None:
        self._sandbox, self._name = sandbox, name
        self._supervisor: Supervisor | None = None
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        sandbox.execs[name] = self._exit

    async def start(self, container: Container, command: list[str], tty: bool, fds: tuple[int, ...]) -> int:
        """Start it; returns the terminal's master with ``tty``, else -1. Raises StartFailed."""
        self._supervisor = self._sandbox.require_supervisor()
        process: dict[str, Any] = {"args": command}
        if tty and not container.record.tty:
            process["env_more"] = ["TERM=xterm"]
        try:
            _, received = await self._supervisor.request(
                "exec", fds, exec=self._name, container=container.record.id, process=process, tty=tty
            )
        except ShimFailed as err:
            self.forget()
            raise StartFailed(f"cannot run {command[0]!r} in the container: {err}") from err
        return received[0] if received else -1

    async def wait(self) -> int:
        """Its exit code; that of SIGKILL when the pod died under it."""
        assert self._supervisor is not None
        return await asyncio.shield(self._exit)

    @property
    def ended(self) -> bool:
        """It has exited."""
        return self._exit.done()

    async def kill(self) -> None:
        """SIGKILL; on return it is gone. Idempotent."""
        if self._exit.done() or self._supervisor is None:
            return
        try:
            await self._supervisor.request("signal", target=self._name, signal=int(signal.SIGKILL))
            await self._exit
        except (SupervisorGone, ShimFailed):
            pass

    def forget(self) -> None:
        """No more interest in its exit. Idempotent."""
        self._sandbox.execs.pop(self._name, None)


class Session:
    """Streams to a process: descriptors are non-blocking and owned by the session."""

    def __init__(self, ends: tuple[int | None, int | None, int | None], terminal: int) -> None:
        self.stdin: int | None = ends[0]
        self.stdout: int | None = ends[1]
        self.stderr: int | None = ends[2]
        self.tty: bool = terminal >= 0
        self._terminal = terminal

    def resize(self, width: int, height: int) -> None:
        """Tell the terminal its size, in characters."""
        if self._terminal >= 0:
            fcntl.ioctl(self._terminal, TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def close_stdin(self) -> None:
        """The end of input. A terminal has no such thing: its descriptor stays."""
        if self.stdin is not None and self.stdin != self._terminal:
            os.close(self.stdin)
            self.stdin = None

    def close(self) -> None:
        """Close the descriptors that are still here. Idempotent."""
        _close_all({fd for fd in (self.stdin, self.stdout, self.stderr, self._terminal) if fd is not None and fd >= 0})
        self.stdin = self.stdout = self.stderr = None
        self._terminal = -1


class ExecSession(Session):
    """Streams of a command. Closing the session while it runs kills it."""

    def __init__(
        self, world: World, process: Process, ends: tuple[int | None, int | None, int | None], terminal: int
    ) -> None:
        super().__init__(ends, terminal)
        self._world = world
        self._process = process
        self._closed = False

    async def wait(self) -> int:
        """The exit code."""
        return await self._process.wait()

    def close(self) -> None:
        """See the class."""
        super().close()
        if not self._closed:
            self._closed = True
            self._world.spawn(self._kill())

    async def _kill(self) -> None:
        await self._process.kill()
        self._process.forget()


class AttachSession(Session):
    """Streams of a container. Closing the session leaves it running."""

    def __init__(
        self, container: Container, ends: tuple[int | None, int | None, int | None], control: int, tty: bool
    ) -> None:
        super().__init__(ends, control if tty else -1)
        self.tty = tty
        self._container = container

    async def wait(self) -> int:
        """The container's exit code."""
        await self._container.exited.wait()
        return self._container.record.status.exit_code


def _pipes(wanted: tuple[bool, bool, bool]) -> tuple[tuple[int | None, int | None, int | None], tuple[int, int, int]]:
    """(ours, theirs): what is not wanted is /dev/null for them and None for us."""
    ours: list[int | None] = []
    theirs: list[int] = []
    for index, want in enumerate(wanted):
        if not want:
            ours.append(None)
            theirs.append(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
            continue
        read, write = os.pipe2(os.O_CLOEXEC)
        mine, other = (write, read) if index == 0 else (read, write)
        os.set_blocking(mine, False)
        ours.append(mine)
        theirs.append(other)
    return (ours[0], ours[1], ours[2]), (theirs[0], theirs[1], theirs[2])


def _output_pipes(wanted: tuple[bool, bool]) -> tuple[tuple[int | None, int | None], list[int]]:
    reads: list[int | None] = []
    writes: list[int] = []
    for want in wanted:
        if not want:
            reads.append(None)
            continue
        read, write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(read, False)
        reads.append(read)
        writes.append(write)
    return (reads[0], reads[1]), writes


def _close_all(fds: Any) -> None:
    for fd in list(fds):
        os.close(fd)


def _socket_in(netns: str, family: int) -> socket.socket:
    """A socket that lives in a network namespace; run in a thread of its own, which goes there and comes back."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(there, CLONE_NEWNET)
        return socket.socket(family, socket.SOCK_STREAM)
    finally:
        setns(own, CLONE_NEWNET)
        os.close(there)
        os.close(own)
