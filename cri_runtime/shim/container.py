"""One container, as its supervisor sees it: from fork to the exit record on disk."""

import json
import os
import signal
import socket
import time

from cri_runtime.linux.constants import CLONE_NEWNS, CLONE_NEWPID
from cri_runtime.linux.namespace import clone3, setns
from cri_runtime.shim import init, messages, rootfs
from cri_runtime.shim.logs import LogFile
from cri_runtime.shim.loop import Loop
from cri_runtime.shim.stages import Status
from cri_runtime.shim.streams import Output

STATUS_FILE = "status.json"


class Container:
    """Runs one spec. ``on_started(error or None)`` is called once, ``on_exited()`` once and after it."""

    def __init__(self, loop: Loop, directory: str, on_started, on_exited) -> None:  # type: ignore[no-untyped-def]
        with open(f"{directory}/spec.json", encoding="utf-8") as file:
            self.spec = json.load(file)
        self.directory = directory
        self.status: dict = {"state": "starting"}
        self.pid = self.pidfd = self.stdin = self.terminal = -1
        self._loop, self._on_started, self._on_exited = loop, on_started, on_exited
        self._outputs: dict = {}
        self._early: list = []
        self._log: LogFile | None = None
        self._error: dict | None = None
        self._warnings: list = []
        self._status_socket: messages.Reader | None = None

    # --- from the supervisor's requests

    def start(self, pid_namespace: int, own_pid_namespace: int) -> None:
        """Fork the first process; ``pid_namespace`` -1 gives it a new one of its own. Raises OSError."""
        operations = rootfs.plan(self.spec)
        if self.spec["log_path"]:
            self._log = LogFile(self.spec["log_path"])
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        child_ends, our_ends = _streams(self.spec)
        cgroup = _open_directory(self.spec["cgroup"]["directory"])
        flags = CLONE_NEWNS | (CLONE_NEWPID if pid_namespace < 0 else 0)
        try:
            if pid_namespace >= 0:
                setns(pid_namespace, CLONE_NEWPID)
            self.pid, self.pidfd = clone3(flags, cgroup)
            if self.pid == 0:
                init.start(self.spec, operations, child_ends, Status(theirs))
        finally:
            if pid_namespace >= 0:
                setns(own_pid_namespace, CLONE_NEWPID)
            for fd in (cgroup, *child_ends):
                if fd >= 0:
                    os.close(fd)
            theirs.close()
        self._watch(ours, our_ends)

    def fork_exec(self, request: dict, streams: tuple, own_pid_namespace: int) -> tuple:
        """Fork a further process; returns (pid, status socket). Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        cgroup = _open_directory(self.spec["cgroup"]["directory"])
        more = request["process"]
        process = {**self.spec["process"], "args": more["args"]}
        process["env"] = process["env"] + more.get("env_more", [])
        try:
            setns(self.pidfd, CLONE_NEWPID)
            pid, pidfd = clone3(0, cgroup)
            if pid == 0:
                init.enter(self.spec, process, self.pidfd, request["tty"], streams, Status(theirs))
        finally:
            setns(own_pid_namespace, CLONE_NEWPID)
            if cgroup >= 0:
                os.close(cgroup)
            theirs.close()
        os.close(pidfd)
        return pid, ours

    def kill(self) -> None:
        """SIGKILL every process of the container. Raises OSError only for what should not happen."""
        if self.pid > 0:
            _kill(self.pid)
        cgroup = self.spec["cgroup"]
        if cgroup["directory"] and os.path.exists(cgroup["directory"] + "/cgroup.kill"):
            with open(cgroup["directory"] + "/cgroup.kill", "w") as file:
                file.write("1")
            return
        for tasks in cgroup["tasks"][:1]:
            with open(tasks[: -len("tasks")] + "cgroup.procs") as file:
                for pid in file.read().split():
                    _kill(int(pid))

    def attach_early(self, outputs: list) -> None:
        """Copy output from its first byte on, and wait for its readers. Before :meth:`start`."""
        self._early = outputs

    def _attach_early(self) -> None:
        for name, fd in self._early:
            output = self._outputs.get(name)
            if output is None:
                os.close(fd)
            else:
                output.attach(fd, patient=True)
        self._early = []

    def attach(self, outputs: list) -> None:
        """Copy output to ``outputs``, pairs of (name, fd)."""
        for name, fd in outputs:
            output = self._outputs.get("stdout" if self.spec["tty"] else name)
            if output is None:
                os.close(fd)
            else:
                output.attach(fd)

    def take_input(self) -> int:
        """A descriptor for the container's input; with stdin_once the only one there will be."""
        if self.terminal >= 0:
            return os.dup(self.terminal)
        if self.stdin < 0:
            return -1
        if not self.spec["stdin_once"]:
            return os.dup(self.stdin)
        fd, self.stdin = self.stdin, -1
        return fd

    def reopen(self) -> None:
        """Go on in a new log file. Raises OSError."""
        if self._log:
            self._log.reopen()

    # --- from the kernel

    def _watch(self, sock: socket.socket, ends: tuple) -> None:
        self.stdin = ends[0]
        for name, fd in zip(("stdout", "stderr"), ends[1:], strict=False):
            if fd >= 0:
                self._outputs[name] = Output(self._loop, name, fd, self._log)
        if self._outputs:
            self._attach_early()
        sock.setblocking(False)
        reader = messages.Reader(sock)
        self._loop.watch(sock.fileno(), lambda: self._hear(sock, reader))

    def _hear(self, sock: socket.socket, reader: messages.Reader) -> None:
        """What the child says until it execs."""
        try:
            received = reader.receive()
        except BlockingIOError:
            return
        except (EOFError, OSError):
            self._loop.forget(sock.fileno())
            sock.close()
            if self._error is None:
                self._started()
            return
        for message, fds in received:
            self._error = message.get("error", self._error)
            if "warning" in message:
                self._warnings.append(message["warning"])
            if fds:
                self.terminal = fds[0]
                self._outputs["stdout"] = Output(self._loop, "stdout", os.dup(self.terminal), self._log)
                self._attach_early()

    def _started(self) -> None:
        self.status = {"state": "running", "pid": self.pid, "started_at": time.time_ns(), "warnings": self._warnings}
        self._save(durable=False)
        self._on_started(None)

    def reaped(self, exit_code: int) -> None:
        """The first process is gone: end the others, finish the log, write the exit down, tell."""
        self.pid = -1
        self.kill()
        for output in self._outputs.values():
            output.finish()
        self._attach_early()  # none was opened: closes them
        if self._log:
            self._log.close()
        for fd in (self.stdin, self.terminal, self.pidfd):
            if fd >= 0:
                os.close(fd)
        self.stdin = self.terminal = self.pidfd = -1
        self.status = {
            "state": "exited",
            "exit_code": exit_code if self._error is None else 128,
            "started_at": self.status.get("started_at", 0),
            "finished_at": time.time_ns(),
            "oom": self._was_oom_killed(),
            "error": self._error,
            "warnings": self._warnings,
        }
        self._save(durable=True)
        if self._error is not None:
            self._on_started(self._error)
        self._on_exited()

    def _was_oom_killed(self) -> bool:
        path = self.spec["cgroup"]["oom_file"]
        try:
            with open(path) as file:
                counts = dict(line.split() for line in file)
        except (OSError, ValueError):
            return False
        return int(counts.get("oom_kill", 0)) > 0

    def _save(self, durable: bool) -> None:
        """Put the status on disk, atomically; the exit also survives a loss of power."""
        path = f"{self.directory}/{STATUS_FILE}"
        fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, json.dumps(self.status).encode())
            if durable:
                os.fdatasync(fd)
        finally:
            os.close(fd)
        os.rename(f"{path}.new", path)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _open_directory(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if path else -1


def _streams(spec: dict) -> tuple:
    """The child's ends and ours: (stdin, stdout, stderr) each. With a terminal the child opens its own."""
    if spec["tty"]:
        return (), (-1, -1, -1)
    if spec["stdin"]:
        stdin_read, stdin_write = os.pipe2(os.O_CLOEXEC)
    else:
        stdin_read, stdin_write = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1
    stdout_read, stdout_write = os.pipe2(os.O_CLOEXEC)
    stderr_read, stderr_write = os.pipe2(os.O_CLOEXEC)
    return (stdin_read, stdout_write, stderr_write), (stdin_write, stdout_read, stderr_read)
