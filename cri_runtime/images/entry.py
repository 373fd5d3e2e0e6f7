"""What the header of a hostile tar entry may say, checked. Pure; every refusal names the entry."""

import os
import tarfile
from decimal import Decimal, InvalidOperation

from cri_runtime.images.errors import UnsafeLayer
from cri_runtime.images.tree import Rel, resolve, split

WHITEOUT_PREFIX = ".wh."
_NAME_BYTES_MAX = 255
_PATH_BYTES_MAX = 4096
_HEADER_BYTES_MAX = 1 << 20
_ID_MAX = (1 << 32) - 2
_MTIME_S_MAX = 1 << 34  # the year 2514: ext4's and xfs' own bound is near


class BoundedTarInfo(tarfile.TarInfo):
    """A tar header; refuses extension headers that would fill the memory."""

    _EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, b"K")

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0 or (self.type in self._EXTENSIONS and self.size > _HEADER_BYTES_MAX):
            raise UnsafeLayer(f"a tar header claims {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]


def names_of(path: str) -> Rel:
    """The names of an entry's path. Raises UnsafeLayer when it leaves the root or cannot be a path."""
    names = split(path)
    encoded = [os.fsencode(name) for name in names]
    if "\0" in path or any(len(name) > _NAME_BYTES_MAX for name in encoded) or len(path) > _PATH_BYTES_MAX:
        raise UnsafeLayer(f'"{path[:100]}": no file can have this name')
    depth = 0
    for name in names:
        depth += -1 if name == ".." else 1
        if depth < 0:
            raise UnsafeLayer(f'"{path}": leads out of the image')
    return resolve(names, lambda _: None) if ".." in names else names


def hidden_name(path: str, name: str) -> str:
    """What a whiteout hides. Raises UnsafeLayer when that is no name."""
    hidden = name.removeprefix(WHITEOUT_PREFIX)
    if hidden in ("", ".", ".."):
        raise UnsafeLayer(f'"{path}": a whiteout of nothing')
    return hidden


def target_of(entry: tarfile.TarInfo) -> str:
    """Where a symbolic link leads; anywhere is fine. Raises UnsafeLayer for what no link can hold."""
    if not entry.linkname or "\0" in entry.linkname or len(entry.linkname) > _PATH_BYTES_MAX:
        raise UnsafeLayer(f'"{entry.name}": a link to nowhere')
    return entry.linkname


def owner_of(entry: tarfile.TarInfo) -> tuple[int, int]:
    """User and group number. Raises UnsafeLayer for what is none."""
    if not (0 <= entry.uid <= _ID_MAX and 0 <= entry.gid <= _ID_MAX):
        raise UnsafeLayer(f'"{entry.name}": the owner {entry.uid}:{entry.gid} cannot be')
    return entry.uid, entry.gid


def mtime_ns_of(entry: tarfile.TarInfo) -> int:
    """Modification time in nanoseconds; from the extended header exactly, not by way of a float."""
    try:
        seconds = Decimal(entry.pax_headers.get("mtime", entry.mtime))
        return int(min(max(seconds, Decimal(0)), Decimal(_MTIME_S_MAX)) * 1_000_000_000)
    except (InvalidOperation, ValueError, OverflowError):
        return 0
