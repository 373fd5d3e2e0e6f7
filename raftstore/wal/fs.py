"""The port to the disk. Everything the log does to files goes through it, so that tests can lose power."""

import os
from pathlib import Path
from typing import Protocol


class File(Protocol):
    """An open file. All calls block; all raise OSError."""

    def read(self) -> bytes:
        """The whole content."""

    def write(self, data: bytes, offset: int) -> None:
        """Write all of ``data``; durable only after ``sync``."""

    def write_durably(self, data: bytes, offset: int) -> None:
        """Write all of ``data``, durable on return. After a failure it is unknown how much of it is there."""

    def sync(self) -> None:
        """Make content and size durable. After a failure nothing about unsynchronised data is known."""

    def resize(self, used_bytes: int, size_bytes: int) -> None:
        """Drop everything from ``used_bytes`` on, then reserve zeros up to ``size_bytes``."""

    def close(self) -> None:
        """Let go of the file."""


class FS(Protocol):
    """The file system."""

    def list(self, directory: Path) -> list[str]:
        """Names in a directory, sorted."""

    def open(self, path: Path, create: bool = False) -> File:
        """Open for reading and writing; ``create`` starts with an empty file."""

    def rename(self, old: Path, new: Path) -> None:
        """Rename, durable on return, within one directory."""

    def remove(self, path: Path) -> None:
        """Remove a file, durable on return."""


class _OSFile:
    def __init__(self, path: Path, flags: int) -> None:
        self._fd = os.open(path, flags | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def read(self) -> bytes:
        return os.pread(self._fd, os.fstat(self._fd).st_size, 0)

    def write(self, data: bytes, offset: int) -> None:
        written = os.pwrite(self._fd, data, offset)
        while written < len(data):
            written += os.pwrite(self._fd, memoryview(data)[written:], offset + written)

    def write_durably(self, data: bytes, offset: int) -> None:
        # One call for pwrite and fdatasync: each call costs this thread a wait for the interpreter afterwards.
        written = os.pwritev(self._fd, [data], offset, os.RWF_DSYNC)
        while written < len(data):
            rest = memoryview(data)[written:]
            written += os.pwritev(self._fd, [rest], offset + written, os.RWF_DSYNC)

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def resize(self, used_bytes: int, size_bytes: int) -> None:
        os.ftruncate(self._fd, used_bytes)
        if size_bytes > used_bytes:
            os.posix_fallocate(self._fd, used_bytes, size_bytes - used_bytes)

    def close(self) -> None:
        os.close(self._fd)


class OSFS:
    """The real file system."""

    def list(self, directory: Path) -> list[str]:
        """See FS."""
        return sorted(path.name for path in directory.iterdir())

    def open(self, path: Path, create: bool = False) -> File:
        """See FS."""
        return _OSFile(path, os.O_CREAT | os.O_TRUNC if create else 0)

    def rename(self, old: Path, new: Path) -> None:
        """See FS."""
        old.rename(new)
        sync_directory(new.parent)

    def remove(self, path: Path) -> None:
        """See FS."""
        path.unlink(missing_ok=True)
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
