"""What a process says about itself to the kernel: prctl, capabilities, seccomp, descriptors."""

import ctypes

from cri_runtime.linux.constants import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_RAISE,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
    SECCOMP_SET_MODE_FILTER,
)
from cri_runtime.linux.libc import libc, syscall


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """prctl(2). Raises OSError."""
    return libc("prctl", option, arg2, arg3, arg4, arg5, subject=f"option {option}")


def set_name(name: str) -> None:
    """PR_SET_NAME: what ``ps`` shows as the command; at most 15 bytes count. Raises OSError."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    libc("prctl", 15, ctypes.addressof(buffer), 0, 0, 0)


def bounding_set() -> int:
    """The capability bounding set as a bit mask."""
    mask = 0
    for number in range(64):
        try:
            mask |= prctl(PR_CAPBSET_READ, number) << number
        except OSError:  # EINVAL: past the last capability of this kernel
            break
    return mask


def drop_bounding(keep: int) -> None:
    """Drop from the bounding set what is not in the mask ``keep``. Raises OSError."""
    have = bounding_set()
    for number in range(have.bit_length()):
        if have >> number & 1 and not keep >> number & 1:
            prctl(PR_CAPBSET_DROP, number)


class _CapHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) of this thread; bit masks. Raises OSError."""
    header = _CapHeader(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
    low = [mask & 0xFFFFFFFF for mask in (effective, permitted, inheritable)]
    high = [mask >> 32 for mask in (effective, permitted, inheritable)]
    data = (ctypes.c_uint32 * 6)(*low, *high)
    syscall("capset", ctypes.byref(header), ctypes.byref(data))


def set_ambient(mask: int) -> None:
    """Make exactly ``mask`` ambient; the bits must be permitted and inheritable. Raises OSError."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(mask.bit_length()):
        if mask >> number & 1:
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)


class _Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def seccomp(program: bytes) -> None:
    """Install a filter (an array of ``struct sock_filter``). Raises OSError; EACCES without CAP_SYS_ADMIN in a
    process that may still gain privileges."""
    buffer = ctypes.create_string_buffer(program, len(program))
    filter_ = _Program(len(program) // 8, ctypes.addressof(buffer))
    syscall("seccomp", SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(filter_))


def close_range(first: int, last: int = 0xFFFFFFFF) -> None:
    """close_range(2): close descriptors ``first`` to ``last``, both included. Raises OSError."""
    syscall("close_range", first, last, 0)
