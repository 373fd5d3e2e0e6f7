"""libc and raw system calls: declared once, at import; each failure becomes OSError naming the call and its object.

``PyDLL`` and not ``CDLL``: the calls keep the interpreter's lock, which a forked child must hold, and which a process
with one thread never misses. The daemon's own threads use only the quick calls here.
"""

import ctypes
import os
from ctypes import c_char_p, c_int, c_long, c_uint, c_ulong, c_void_p

_libc = ctypes.PyDLL(None, use_errno=True)
_MACHINE = os.uname().machine

for _name, _types in {
    "mount": (c_char_p, c_char_p, c_char_p, c_ulong, c_char_p),
    "umount2": (c_char_p, c_int),
    "unshare": (c_int,),
    "setns": (c_int, c_int),
    "sethostname": (c_char_p, c_ulong),
    "prctl": (c_int, c_ulong, c_ulong, c_ulong, c_ulong),
}.items():
    _function = getattr(_libc, _name)
    _function.restype = c_int
    _function.argtypes = _types

_libc.syscall.restype = c_long

SYSCALLS = {
    "pivot_root": (155, 41),
    "capset": (126, 91),
    "seccomp": (317, 277),
    "bpf": (321, 280),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "clone3": (435, 435),
    "close_range": (436, 436),
    "openat2": (437, 437),
    "mount_setattr": (442, 442),
}
"""Numbers on x86-64 and aarch64 of the calls that libc may not wrap."""

_ARCH = {"x86_64": 0, "aarch64": 1}[_MACHINE]


def check(result: int, call: str, subject: str | int | None = None) -> int:
    """``result``, or OSError from errno when it is -1; ``call`` and ``subject`` say what failed, on what."""
    if result != -1:
        return result
    code = ctypes.get_errno()  # before anything else can run
    text = f"{call}: {os.strerror(code)}"
    raise OSError(code, text) if subject is None else OSError(code, text, str(subject))


def libc(name: str, *args: object, subject: str | int | None = None) -> int:
    """Call a declared libc function. Raises OSError."""
    return check(getattr(_libc, name)(*args), name, subject)


def syscall(name: str, *args: object, subject: str | int | None = None) -> int:
    """Make a system call by number. Integers travel as long, everything else as ctypes has it. Raises OSError."""
    words = [c_long(arg) if isinstance(arg, int) else arg for arg in args]
    return check(_libc.syscall(c_long(SYSCALLS[name][_ARCH]), *words), name, subject)


__all__ = ["c_char_p", "c_int", "c_long", "c_uint", "c_ulong", "c_void_p", "check", "libc", "syscall"]
