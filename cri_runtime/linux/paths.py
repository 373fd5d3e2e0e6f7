"""openat2(2): names from an image resolve beneath its root, whatever links it holds."""

import ctypes
import errno
import os
import stat

from cri_runtime.linux.constants import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS
from cri_runtime.linux.libc import syscall

_SAFE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def openat2(dirfd: int, path: str, flags: int, mode: int = 0, resolve: int = _SAFE) -> int:
    """openat2(2), close-on-exec; by default ``dirfd`` is the root for ``/``, ``..`` and every link. Raises OSError."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    while True:
        try:
            return syscall("openat2", dirfd, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how), subject=path)
        except BlockingIOError:  # EAGAIN: a rename raced with "..", says openat2(2); try again
            continue


def ensure(root: int, path: str, mode: int = 0o755, is_file: bool = False) -> int:
    """A descriptor (O_PATH) of ``path`` beneath ``root``; missing directories, and the file itself when ``is_file``,
    are made. Dangling links resolve to what they would name, still beneath ``root``. Raises OSError."""
    try:
        return openat2(root, path, os.O_PATH)
    except FileNotFoundError:
        pass
    parent_path, name = os.path.split(path.rstrip("/"))
    parent = ensure(root, parent_path or "/", mode)
    try:
        return _make(root, parent, parent_path, name, mode, is_file)
    finally:
        os.close(parent)


def _make(root: int, parent: int, parent_path: str, name: str, mode: int, is_file: bool) -> int:
    try:
        if is_file:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent))
        else:
            os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        if not stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            return openat2(root, os.path.join(parent_path, name), os.O_PATH)
        return ensure(root, _follow(parent, parent_path, name), mode, is_file)
    return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def _follow(parent: int, parent_path: str, name: str) -> str:
    """Where the dangling link ``name`` points, as a path from the root; refuses links to themselves."""
    target = os.path.normpath(os.path.join("/", parent_path, os.readlink(name, dir_fd=parent)))
    if target == os.path.normpath(os.path.join("/", parent_path, name)):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), target)
    return target
