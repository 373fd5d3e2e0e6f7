"""mount(2) and its newer relatives, by descriptor."""

import ctypes
import os

from cri_runtime.linux.constants import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    MOVE_MOUNT_F_EMPTY_PATH,
    MOVE_MOUNT_T_EMPTY_PATH,
    OPEN_TREE_CLOEXEC,
    OPEN_TREE_CLONE,
)
from cri_runtime.linux.libc import libc, syscall


def mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
    """mount(2). Raises OSError naming the call and ``target``; PermissionError without CAP_SYS_ADMIN."""
    args = (os.fsencode(source), os.fsencode(target), os.fsencode(fstype), flags, os.fsencode(data) or None)
    libc("mount", *args, subject=target)


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2). Raises OSError; EINVAL when ``target`` is not a mount point."""
    libc("umount2", os.fsencode(target), flags, subject=target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2). Raises OSError."""
    syscall("pivot_root", os.fsencode(new_root), os.fsencode(put_old), subject=new_root)


def open_tree(path: str, recursive: bool = True) -> int:
    """open_tree(2) with OPEN_TREE_CLONE: a detached copy of the mount at ``path``, still a peer of the original.

    Returns a close-on-exec descriptor; closing it before :func:`move_mount` undoes the copy. Raises OSError.
    """
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    return syscall("open_tree", AT_FDCWD, os.fsencode(path), flags, subject=path)


def move_mount(tree: int, target: int, subject: str = "") -> None:
    """move_mount(2): attach the detached ``tree`` on what the descriptor ``target`` names. Raises OSError."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    syscall("move_mount", tree, b"", target, b"", flags, subject=subject or target)


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def mount_setattr(
    tree: int, attr_set: int = 0, propagation: int = 0, recursive: bool = False, userns: int = 0, subject: str = ""
) -> None:
    """mount_setattr(2) on the mount that ``tree`` names, Linux 5.12. Raises OSError; ENOSYS on older kernels."""
    attr = _MountAttr(attr_set, 0, propagation, userns)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscall("mount_setattr", tree, b"", flags, ctypes.byref(attr), ctypes.sizeof(attr), subject=subject or tree)
