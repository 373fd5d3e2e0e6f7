"""Reading and writing the small files of cgroups."""

import os
from collections.abc import Callable
from pathlib import Path

from cri_runtime.cgroups.base import CgroupError


def write(path: Path, value: str) -> None:
    """Write ``value`` in one call, as the kernel wants it. Raises CgroupError naming file and value."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as err:
        raise CgroupError(err.errno, f'cannot write "{value}": {err.strerror}', str(path)) from err


def read(path: Path) -> str:
    """The text, stripped; empty when there is no such file."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def read_int(path: Path) -> int | None:
    """The number in the file; None for ``max``, nonsense or absence."""
    text = read(path)
    return int(text) if text.lstrip("-").isdigit() else None


def read_table(path: Path) -> dict[str, int]:
    """``name number`` per line."""
    rows = (line.split() for line in read(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def write_all(writes: list[tuple[Path, str]], read_old: Callable[[Path], str] = read) -> None:
    """Do all writes or none: after a failure those done are put back. Raises CgroupError."""
    undo: list[tuple[Path, str]] = []
    try:
        for path, value in writes:
            old = read_old(path)
            write(path, value)
            undo.append((path, old))
    except CgroupError:
        for path, old in reversed(undo):
            write(path, old)
        raise


def ancestors(path: str) -> list[str]:
    """The cgroups above ``path``, outermost first, without the root."""
    names = path.strip("/").split("/")
    return ["/" + "/".join(names[:length]) for length in range(1, len(names))]


def remove_tree(directory: Path) -> bool:
    """Remove a cgroup and those below. False when it is busy."""
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        below = [entry for entry in _subdirectories(directory) if not remove_tree(entry)]
        if below:
            return False
        return _rmdir(directory)
    return True


def _rmdir(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _subdirectories(directory: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def subdirectory_names(directory: Path) -> list[str]:
    """Names of the cgroups directly below."""
    return sorted(entry.name for entry in _subdirectories(directory))
