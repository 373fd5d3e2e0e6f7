"""Who a container runs as: numbers and names, looked up in the image's own /etc/passwd and /etc/group."""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cri_runtime.linux.paths import openat2
from cri_runtime.pod.errors import InvalidConfig

FILE_BYTES_MAX = 4 << 20
ID_MAX = 0xFFFFFFFF - 1


@dataclass(frozen=True)
class User:
    """A resolved user."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@dataclass(frozen=True)
class Wanted:
    """What was asked for: ``user`` and ``group`` are names or numbers, empty for none; ``groups`` come on top;
    ``merge`` also takes the groups that the image's /etc/group gives the user."""

    user: str = ""
    group: str = ""
    groups: tuple[int, ...] = ()
    merge: bool = True


def resolve(wanted: Wanted, passwd: str, group: str) -> User:
    """Pure. Raises InvalidConfig for a name that the files do not have, or a number out of range."""
    name = wanted.user or "0"
    row = _find(passwd, name, 7, ids=(2, 3))
    if row is None and not _is_id(name):
        raise InvalidConfig("config.linux.security_context", f'the image has no user "{name}" in /etc/passwd')
    uid = int(row[2]) if row else int(name)
    gid = _group_id(wanted.group, group) if wanted.group else (int(row[3]) if row else 0)
    member = _memberships(group, row[0]) if row and wanted.merge else []
    groups = dict.fromkeys([gid, *member, *wanted.groups])
    return User(uid, gid, tuple(groups), row[5] if row and row[5] else "/")


def _find(table: str, key: str, columns: int, ids: tuple[int, ...] = (2,)) -> list[str] | None:
    """The row with this name or number; names go first, as a name may be all digits. Rows without numbers in the
    columns ``ids`` do not count."""
    split = (line.split(":") for line in table.splitlines())
    rows = [row for row in split if len(row) >= columns and all(_is_id(row[column]) for column in ids)]
    by_name = next((row for row in rows if row[0] == key), None)
    return by_name or next((row for row in rows if row[2] == key), None)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) <= ID_MAX


def _group_id(key: str, table: str) -> int:
    row = _find(table, key, 3)
    if row is None and not _is_id(key):
        raise InvalidConfig("config.linux.security_context", f'the image has no group "{key}" in /etc/group')
    return int(row[2]) if row else int(key)


def _memberships(table: str, name: str) -> list[int]:
    rows = (line.split(":") for line in table.splitlines())
    return [int(row[2]) for row in rows if len(row) >= 4 and _is_id(row[2]) and name in row[3].split(",")]


def read_from_layers(lower: Sequence[Path], path: str) -> str:
    """The text of ``path`` in an image, given its layers topmost first; empty when it has no such file.

    Links resolve within one layer. An overlay whiteout (character device 0:0) hides what lies below.
    """
    for layer in lower:
        found, text = _read_from_layer(layer, path)
        if found:
            return text
    return ""


def _read_from_layer(layer: Path, path: str) -> tuple[bool, str]:
    root = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = openat2(root, path, os.O_PATH)
    except OSError:
        return _is_opaque(layer / Path(path).parent), ""
    finally:
        os.close(root)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return True, ""
        with open(f"/proc/self/fd/{fd}", "rb") as file:  # noqa: PTH123 -- by descriptor
            return True, file.read(FILE_BYTES_MAX).decode(errors="replace")
    finally:
        os.close(fd)


def _is_opaque(directory: Path) -> bool:
    try:
        return os.getxattr(directory, "trusted.overlay.opaque", follow_symlinks=False) == b"y"
    except OSError:
        return False
