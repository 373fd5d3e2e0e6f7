"""Copying files from one tree to another by descriptors: no link on the way is followed, in neither tree."""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Owner:
    """Who owns the copies: ``keep`` the same as before, else ``uid`` and ``gid``."""

    keep: bool
    uid: int = 0
    gid: int = 0


def copy_entry(source: int, name: str, target: int, new_name: str, owner: Owner) -> None:
    """Copy ``name`` in the directory ``source`` to ``new_name`` in ``target``: a file replaces what is there but a
    directory, a directory joins one. Raises OSError."""
    info = os.stat(name, dir_fd=source, follow_symlinks=False)
    if stat.S_ISDIR(info.st_mode):
        _copy_directory(source, name, target, new_name, owner)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new_name, dir_fd=target)
        _copy_leaf(source, name, target, new_name, info)
    _finish(target, new_name, info, owner)


def copy_contents(source: int, target: int, owner: Owner) -> None:
    """Copy all that is in the directory ``source`` into ``target``. Raises OSError."""
    for name in sorted(os.listdir(source)):
        copy_entry(source, name, target, name, owner)


def _copy_directory(source: int, name: str, target: int, new_name: str, owner: Owner) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(new_name, 0o700, dir_fd=target)
    with opened(name, source) as inner_source, opened(new_name, target) as inner_target:
        copy_contents(inner_source, inner_target, owner)


@contextlib.contextmanager
def opened(name: str, directory: int) -> Iterator[int]:
    """The directory ``name`` itself, not where a link leads. Raises OSError."""
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)


def _copy_leaf(source: int, name: str, target: int, new_name: str, info: os.stat_result) -> None:
    if stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), new_name, dir_fd=target)
    elif stat.S_ISREG(info.st_mode):
        reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        writing = os.open(new_name, flags, 0o600, dir_fd=target)
        with os.fdopen(reading, "rb") as old, os.fdopen(writing, "wb") as new:
            shutil.copyfileobj(old, new, 1 << 20)
    elif not stat.S_ISSOCK(info.st_mode):  # a socket is nothing without its listener
        os.mknod(new_name, info.st_mode, info.st_rdev, dir_fd=target)


def _finish(target: int, name: str, info: os.stat_result, owner: Owner) -> None:
    if stat.S_ISSOCK(info.st_mode):
        return
    uid, gid = (info.st_uid, info.st_gid) if owner.keep else (owner.uid, owner.gid)
    os.chown(name, uid, gid, dir_fd=target, follow_symlinks=False)
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=target)
    os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)
