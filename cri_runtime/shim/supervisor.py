"""A pod's supervisor: holds its namespaces, is the parent of its containers, and outlives the daemon.

It serves the daemon over a connection it was born with and, when that is gone, over ``supervisor.sock`` in the pod's
state directory. Exits are on disk before anyone is told.
"""

import os
import signal
import socket

from cri_runtime.linux.constants import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
)
from cri_runtime.linux.mount import mount, pivot_root, umount2
from cri_runtime.linux.namespace import clone3, sethostname, unshare
from cri_runtime.linux.process import close_range, prctl, set_name
from cri_runtime.shim import messages, pause
from cri_runtime.shim.container import Container
from cri_runtime.shim.loop import Channel, Loop
from cri_runtime.shim.stages import Failure, Steps

SOCKET = "supervisor.sock"
NETNS = "netns"
SHM = "shm"


def main(pod: dict, connection: socket.socket, listener: socket.socket) -> None:
    """Be the supervisor of ``pod`` until told to quit. Its first message on ``connection`` answers for its birth."""
    step = Steps()
    try:
        supervisor = Supervisor(pod, step)
    except BaseException as err:
        messages.send(connection, {"seq": 0, "error": Failure.of(step.current, err).to_dict()})
        return
    supervisor.serve(connection, listener)


class Supervisor:
    """See the module. ``pod``: id, state (directory), network, ipc, pid (``pod`` or ``host``...), hostname, sysctls."""

    def __init__(self, pod: dict, step: Steps) -> None:
        """Make the namespaces. Raises OSError, having undone what outlives this process."""
        self._pod = pod
        self._loop = Loop()
        self._channel: Channel | None = None
        self._containers: dict = {}
        self._execs: dict = {}
        self._stopping: list = []
        self._dying = False
        self._pod_init = self._pod_pid_namespace = -1
        self._own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._make_namespaces(step)
        except BaseException:
            self._unmake()
            raise

    # --- the pod

    def _make_namespaces(self, step: Steps) -> None:
        pod = self._pod
        set_name(f"pod:{pod['id'][:11]}")
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        step("make namespaces")
        new_network, new_ipc = pod["network"] == "pod", pod["ipc"] == "pod"
        flags = (CLONE_NEWNET | CLONE_NEWUTS if new_network else 0) | (CLONE_NEWIPC if new_ipc else 0)
        if flags:
            unshare(flags)
        if new_network:
            sethostname(pod["hostname"])
            step("pin the network namespace")
            path = f"{pod['state']}/{NETNS}"
            os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o600))
            mount("/proc/self/ns/net", path, "", MS_BIND)
        for name, value in pod["sysctls"].items():
            step(f"set sysctl {name}")
            _write_sysctl(name, value)
        if new_ipc:
            step("mount /dev/shm")
            os.makedirs(f"{pod['state']}/{SHM}", exist_ok=True)
            options = f"mode=1777,size={pod['shm_bytes']}"
            mount("shm", f"{pod['state']}/{SHM}", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
        if pod["pid"] == "pod":
            step("make the pod's process namespace")
            self._make_pod_init()

    def _make_pod_init(self) -> None:
        """Process 1 of a pod whose containers share processes: it reaps orphans and does nothing else.

        It keeps its capabilities, so no container with less may look into it; there is little to see: its program is
        nine bytes of code, its root is empty.
        """
        ready, told = os.pipe2(os.O_CLOEXEC)
        pid, pidfd = clone3(CLONE_NEWPID | CLONE_NEWNS)
        if pid == 0:
            os.close(ready)  # or writing to the other end would never fail
            _be_pod_init(f"{self._pod['state']}/empty", told)
        os.close(told)
        os.read(ready, 1)
        os.close(ready)
        self._pod_init = pid
        self._pod_pid_namespace = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        os.close(pidfd)

    def _unmake(self) -> None:
        """Undo what would outlive this process: the mounts. Idempotent."""
        if self._pod_init > 0:
            os.kill(self._pod_init, signal.SIGKILL)
            os.waitpid(self._pod_init, 0)  # nobody else reaps: this process is busy here
            self._pod_init = -1
        for name in (NETNS, SHM):
            try:
                umount2(f"{self._pod['state']}/{name}", MNT_DETACH)
            except OSError:
                pass  # never mounted, or gone already

    # --- serving

    def serve(self, connection: socket.socket, listener: socket.socket) -> None:
        """Serve until told to quit."""
        wake_read, wake_write = socket.socketpair()
        wake_read.setblocking(False)
        wake_write.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._wake = (wake_read, wake_write)
        self._loop.watch(wake_read.fileno(), self._reap)
        self._listener = listener
        self._loop.watch(listener.fileno(), self._accept)
        self._adopt(connection)
        self._send({"seq": 0, "ok": {"pid": os.getpid()}})
        self._loop.run()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        self._adopt(connection)

    def _adopt(self, connection: socket.socket) -> None:
        """The newest connection is the daemon; one that hung is dead."""
        if self._channel:
            self._channel.close()
        self._channel = Channel(self._loop, connection, self._on_request, self._on_end)

    def _on_end(self) -> None:
        self._channel = None

    def _send(self, message: dict, fds: tuple = ()) -> None:
        if self._channel:
            self._channel.send(message, fds)
        else:
            for fd in fds:
                os.close(fd)

    def _on_request(self, request: dict, fds: list) -> None:
        handler = getattr(self, f"_do_{request['op']}")
        try:
            answer = handler(request, fds)
        except (OSError, Failure, KeyError, ValueError) as err:
            failure = Failure.of(request["op"], err)
            self._send({"seq": request["seq"], "error": failure.to_dict()})
            return
        if answer is not None:
            self._send({"seq": request["seq"], "ok": answer[0]}, answer[1])

    # --- requests: each answers (ok, fds) or, later, by itself

    def _do_start(self, request: dict, fds: list) -> "tuple | None":
        name, seq = request["container"], request["seq"]

        def on_started(error: "dict | None") -> None:
            self._send({"seq": seq, "error": error} if error else {"seq": seq, "ok": container.status})

        def on_exited() -> None:
            self._send({"event": "exited", "container": name, "status": container.status})
            self._maybe_stopped()

        try:
            container = Container(self._loop, request["directory"], on_started, on_exited)
            container.attach_early(list(zip(request.get("attach", ()), fds, strict=True)))
            container.start(self._pid_namespace_of(container.spec), self._own_pid_namespace)
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        self._containers[name] = container
        return None

    def _pid_namespace_of(self, spec: dict) -> int:
        if spec["pid"] == "container":
            return -1
        if spec["pid"] == "pod":
            return self._pod_pid_namespace
        if spec["pid"] == "host":
            return self._own_pid_namespace
        target = self._running(spec["target"])
        return target.pidfd

    def _running(self, name: str) -> Container:
        container = self._containers.get(name)
        if container is None or container.status["state"] != "running":
            raise Failure("find the container", 0, name, "it is not running")
        return container

    def _do_exec(self, request: dict, fds: list) -> "tuple | None":
        try:
            container = self._running(request["container"])
            pid, sock = container.fork_exec(request, tuple(fds), self._own_pid_namespace)
        finally:
            for fd in fds:
                os.close(fd)
        self._execs[pid] = Exec(self._loop, request, pid, sock, self._send)
        return None

    def _do_signal(self, request: dict, fds: list) -> tuple:
        for pid, running in self._execs.items():
            if running.name == request["target"]:
                running.kill(request["signal"])
                return {"pid": pid}, ()
        container = self._containers[request["target"]]
        if container.pid > 0:
            os.kill(container.pid, request["signal"])
        return {"pid": container.pid}, ()

    def _do_kill(self, request: dict, fds: list) -> tuple:
        container = self._containers[request["container"]]
        if container.pid > 0:
            container.kill()
        return {}, ()

    def _do_attach(self, request: dict, fds: list) -> tuple:
        container = self._running(request["container"])
        names = [name for name in ("stdout", "stderr") if request[name]]
        container.attach(list(zip(names, fds, strict=True)))
        stdin = container.take_input() if request["stdin"] else -1
        return {"terminal": container.terminal >= 0}, (() if stdin < 0 else (stdin,))

    def _do_reopen(self, request: dict, fds: list) -> tuple:
        self._running(request["container"]).reopen()
        return {}, ()

    def _do_forget(self, request: dict, fds: list) -> tuple:
        container = self._containers.get(request["container"])
        if container is not None and container.status["state"] == "exited":
            del self._containers[request["container"]]
        return {}, ()

    def _do_state(self, request: dict, fds: list) -> tuple:
        containers = {name: c.status for name, c in self._containers.items() if c.status["state"] != "starting"}
        return {"pid": os.getpid(), "containers": containers}, ()

    def _do_namespaces(self, request: dict, fds: list) -> tuple:
        return {}, (os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC),)

    def _do_stop(self, request: dict, fds: list) -> None:
        self._stopping.append(request["seq"])
        for container in self._containers.values():
            if container.pid > 0:
                container.kill()
        self._maybe_stopped()

    def _maybe_stopped(self) -> None:
        if self._stopping and not any(container.pid > 0 for container in self._containers.values()):
            for seq in self._stopping:
                self._send({"seq": seq, "ok": {}})
            self._stopping = []

    def _do_quit(self, request: dict, fds: list) -> tuple:
        self._unmake()
        self._loop.stopping = True
        return {}, ()

    # --- children

    def _reap(self) -> None:
        try:
            self._wake[0].recv(4096)
        except BlockingIOError:
            pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._ended(pid, _exit_code(status))

    def _ended(self, pid: int, code: int) -> None:
        if pid == self._pod_init:
            self._pod_init = -1
            self._dying = True  # and so are the containers: the kernel ends a process namespace with its first process
            self._maybe_die()
            return
        running = self._execs.pop(pid, None)
        if running is not None:
            running.reaped(code)
            return
        for container in self._containers.values():
            if container.pid == pid:
                container.reaped(code)
                self._maybe_die()
                return

    def _maybe_die(self) -> None:
        """A pod whose shared processes have ended is over once its containers' exits are written down."""
        if self._dying and not any(container.pid > 0 for container in self._containers.values()):
            self._unmake()
            self._loop.stopping = True


class Exec:
    """A further process of a container, until it is reaped."""

    def __init__(self, loop: Loop, request: dict, pid: int, sock: socket.socket, send) -> None:  # type: ignore[no-untyped-def]
        self.name, self._seq, self._pid, self._send = request["exec"], request["seq"], pid, send
        self._loop, self._socket, self._reader = loop, sock, messages.Reader(sock)
        self._error: dict | None = None
        self._terminal: tuple = ()
        sock.setblocking(False)
        loop.watch(sock.fileno(), self._hear)

    def kill(self, number: int) -> None:
        """Signal it; SIGKILL also reaches the process group it leads."""
        os.kill(self._pid, number)
        if number == signal.SIGKILL:
            try:
                os.killpg(self._pid, number)
            except ProcessLookupError:
                pass

    def _hear(self) -> None:
        try:
            received = self._reader.receive()
        except BlockingIOError:
            return
        except (EOFError, OSError):
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            if self._error is None:
                self._send({"seq": self._seq, "ok": {"pid": self._pid}}, self._terminal)
            return
        for message, fds in received:
            self._error = message.get("error", self._error)
            self._terminal += tuple(fds)

    def reaped(self, code: int) -> None:
        """It is gone."""
        while self._socket.fileno() >= 0:
            self._hear()
        if self._error is not None:
            for fd in self._terminal:
                os.close(fd)
            self._send({"seq": self._seq, "error": self._error})
        else:
            self._send({"event": "exec_exited", "exec": self.name, "exit_code": code})


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _write_sysctl(name: str, value: str) -> None:
    fd = os.open("/proc/sys/" + name.replace(".", "/"), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _be_pod_init(root: str, told: int) -> None:
    try:
        signal.set_wakeup_fd(-1)
        prctl(PR_SET_DUMPABLE, 0)
        mount("", "/", "", MS_REC | MS_PRIVATE)
        mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0,mode=555")
        os.chdir(root)
        pivot_root(".", ".")
        umount2(".", MNT_DETACH)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a pod ends with its supervisor
        os.write(told, b"1")  # fails when that happened before the line above
        os.dup2(told, 0, inheritable=False)
        os.dup2(pause.FD, 1, inheritable=False)
        close_range(2)
        os.execve(1, ["pause"], {})
    finally:
        os._exit(1)
