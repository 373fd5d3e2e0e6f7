"""The last stages before a container's program runs, for its first process and for every exec alike."""

import errno
import fcntl
import os
import resource
import signal
import stat

from cri_runtime.linux import process
from cri_runtime.linux.constants import (
    PR_SET_DUMPABLE,
    PR_SET_KEEPCAPS,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    TIOCGPTPEER,
    TIOCSCTTY,
    TIOCSPTLCK,
)
from cri_runtime.shim.stages import Failure, Status, Steps

SYS_ADMIN = 1 << 21
STATUS_FD = 3
"""Where the socket to the supervisor sits until exec closes it."""


def begin_child() -> None:
    """The first things a forked child does: the signals of a fresh process, and no way in for others.

    Not dumpable: until exec, /proc/<pid>/{exe,fd,mem} of this process, which the container may see, are closed to it.
    """
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    process.prctl(PR_SET_DUMPABLE, 0)
    os.setsid()
    os.umask(0)


def join_cgroup(tasks: list) -> None:
    """Move this thread into v1 cgroups. Raises OSError."""
    for path in tasks:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, b"0")
        os.close(fd)


def set_oom_score(adjustment: int) -> str:
    """Set oom_score_adj; lowering it needs CAP_SYS_RESOURCE. Returns a warning, empty when all went well."""
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(adjustment).encode())
        finally:
            os.close(fd)
    except PermissionError:
        return f"oom_score_adj stays as it is: this host lacks CAP_SYS_RESOURCE, which {adjustment} needs"
    return ""


def open_terminal() -> tuple:
    """A new terminal of the container's own devpts: (master, slave). Raises OSError."""
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if os.fstat(master).st_rdev != os.makedev(5, 2):
        raise OSError(errno.ENOTTY, "not a terminal multiplexer", "/dev/pts/ptmx")
    fcntl.ioctl(master, TIOCSPTLCK, b"\0\0\0\0")
    return master, fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def take_terminal(slave: int) -> None:
    """Make the terminal this session's, and its three standard streams. Raises OSError."""
    fcntl.ioctl(slave, TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(slave, fd)


def take_streams(stdin: int, stdout: int, stderr: int) -> None:
    """Make these the three standard streams."""
    for number, fd in enumerate((stdin, stdout, stderr)):
        os.dup2(fd, number)


def run(spec: dict, status: Status, step: Steps) -> None:
    """Become the user, give up what the container must not have, and exec. Only returns by raising OSError, Failure.

    Order matters. The filter comes before the capabilities go when new privileges stay possible (installing it then
    takes CAP_SYS_ADMIN), and last of all when they do not.
    """
    step("close inherited descriptors")
    status.move(STATUS_FD)
    process.close_range(STATUS_FD + 1)
    os.umask(0o022)
    step("set resource limits")
    for name, soft, hard in spec["rlimits"]:
        resource.setrlimit(getattr(resource, name), (soft, hard))
    step("enter the working directory")
    _enter_directory(spec["cwd"])
    step("drop capabilities from the bounding set")
    process.drop_bounding(spec["bounding"])
    step("become the user")
    process.prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups(spec["groups"])
    os.setresgid(spec["gid"], spec["gid"], spec["gid"])
    os.setresuid(spec["uid"], spec["uid"], spec["uid"])
    process.prctl(PR_SET_KEEPCAPS, 0)
    process.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    status.check()
    program = bytes.fromhex(spec["seccomp"])
    if program and not spec["no_new_privs"]:
        step("install the seccomp filter")
        process.capset(SYS_ADMIN, process.bounding_set() | SYS_ADMIN, 0)  # permitted still, thanks to KEEPCAPS
        process.seccomp(program)
    step("set capabilities")
    process.capset(spec["effective"], spec["permitted"], spec["inheritable"])
    process.set_ambient(spec["ambient"])
    if spec["no_new_privs"]:
        process.prctl(PR_SET_NO_NEW_PRIVS, 1)
        if program:
            step("install the seccomp filter")
            process.seccomp(program)
    step("exec")
    execute(spec["args"], spec["env"])


def _enter_directory(path: str) -> None:
    try:
        os.chdir(path)
    except FileNotFoundError:
        os.makedirs(path)
        os.chdir(path)
    here = os.getcwd()
    if not here.startswith("/"):  # "(unreachable)...": a directory outside the root, by a descriptor that leaked
        raise OSError(errno.EPERM, "the working directory lies outside the container", path)


def execute(args: list, env: list) -> None:
    """exec, searching PATH of ``env`` for a name without a slash. Raises Failure."""
    environment = dict(item.split("=", 1) for item in env)
    name = args[0]
    if "/" in name:
        candidates = [name]
    else:
        path = environment.get("PATH") or "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        candidates = [f"{directory or '.'}/{name}" for directory in path.split(":")]
    failure = Failure("exec", errno.ENOENT, name, "no such program" + ("" if "/" in name else " in $PATH"))
    for candidate in candidates:
        try:
            if len(candidates) > 1 and not stat.S_ISREG(os.stat(candidate).st_mode):
                continue
            os.execve(candidate, args, environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as err:
            failure = Failure("exec", err.errno or 0, candidate, err.strerror or "")
    raise failure
