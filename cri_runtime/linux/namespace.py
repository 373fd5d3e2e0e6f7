"""Namespaces and processes in them: unshare, setns, clone3."""

import ctypes
import os
from signal import SIGCHLD

from cri_runtime.linux.constants import CLONE_INTO_CGROUP, CLONE_PIDFD
from cri_runtime.linux.libc import libc, syscall


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    libc("unshare", flags, subject=f"{flags:#x}")


def setns(fd: int, nstype: int = 0) -> None:
    """setns(2): ``fd`` is a namespace, or a pidfd with the namespaces to take from its process. Raises OSError."""
    libc("setns", fd, nstype, subject=fd)


def sethostname(name: str) -> None:
    """sethostname(2) in this process's UTS namespace. Raises OSError."""
    data = os.fsencode(name)
    libc("sethostname", data, len(data), subject=name)


class _CloneArgs(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    ]


def clone3(flags: int, cgroup: int = -1) -> tuple[int, int]:
    """Fork with clone3(2): ``CLONE_NEW*`` flags, and the directory of the v2 cgroup to begin in unless it is -1.

    Only for a process with one thread. Returns (pid, pidfd) in the parent and (0, -1) in the child, as
    :func:`os.fork` would. Raises OSError.
    """
    pidfd = ctypes.c_int(-1)
    args = _CloneArgs(flags=flags | CLONE_PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=SIGCHLD)
    if cgroup >= 0:
        args.flags |= CLONE_INTO_CGROUP
        args.cgroup = cgroup
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = -1
    try:
        pid = syscall("clone3", ctypes.byref(args), ctypes.sizeof(args))
    finally:
        if pid == 0:
            ctypes.pythonapi.PyOS_AfterFork_Child()
        else:
            ctypes.pythonapi.PyOS_AfterFork_Parent()
    return pid, pidfd.value
