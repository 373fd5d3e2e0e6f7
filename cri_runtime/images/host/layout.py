"""What goes into the image and where: files at the paths they have on the host, with every link on the way.

Whole layouts are values in memory; :func:`write` turns one into a layer, the same bytes for the same files.
"""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO

from cri_runtime.images.errors import HostProgramError
from cri_runtime.images.layer import LayerWriter, directory_entry, file_entry, symlink_entry

_LINKS_MAX = 40


@dataclass(frozen=True)
class Directory:
    """A directory; owner root."""

    mode: int = 0o755


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class HostFile:
    """A copy of a file of the host."""

    path: str


@dataclass(frozen=True)
class Text:
    """A file that we write."""

    content: bytes
    mode: int = 0o644


Node = Directory | Link | HostFile | Text


class Layout:
    """Image paths (absolute, no trailing slash) and what is there. The first to claim a path keeps it."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}

    def put(self, path: str, node: Node) -> None:
        """Claim ``path`` and the directories above it. A directory that becomes a link raises HostProgramError."""
        for parent in _parents(path):
            self.nodes.setdefault(parent, Directory())
        self.nodes.setdefault(path, node)

    def add(self, path: str) -> str:
        """Copy one file or directory of the host, at the same path, with the links that lead there.

        Returns the real path. Raises HostProgramError when it is absent or no file, link or directory.
        """
        done, todo, links = "", list(reversed(_components(path))), 0
        while todo:
            name = todo.pop()
            if name == "..":
                done = done.rpartition("/")[0]
                continue
            here = f"{done}/{name}"
            target = _readlink(here)
            if target is None:
                done = here
                continue
            links += 1
            if links > _LINKS_MAX:
                raise HostProgramError(f"{path}: too many symbolic links")
            self.put(here, Link(target))
            done = "" if target.startswith("/") else done
            todo.extend(reversed(_components(target)))
        self._copy(done, path)
        return done

    def add_tree(self, path: str, wanted: Callable[[str, str], bool] = lambda folder, name: True) -> Iterator[str]:
        """Copy a directory and what ``wanted(folder, name)`` selects below; yields the files' real paths."""
        for folder, folders, files in os.walk(self.add(path)):
            folders[:] = sorted(name for name in folders if wanted(folder, name))
            for name in sorted(files):
                if wanted(folder, name) and _exists(f"{folder}/{name}"):
                    yield self.add(f"{folder}/{name}")
            for name in folders:
                if os.path.islink(f"{folder}/{name}"):  # noqa: PTH114
                    self.put(f"{folder}/{name}", Link(os.readlink(f"{folder}/{name}")))  # noqa: PTH115
                else:
                    self.put(f"{folder}/{name}", Directory())

    def _copy(self, real: str, path: str) -> None:
        try:
            mode = os.stat(real or "/").st_mode  # noqa: PTH116
        except OSError as err:
            raise HostProgramError(f"{path}: {err.strerror}") from err
        if stat.S_ISDIR(mode):
            self.put(real or "/", Directory())
        elif stat.S_ISREG(mode):
            self.put(real, HostFile(real))
        else:
            raise HostProgramError(f"{path}: neither a file nor a directory")


def write(layout: Layout, layer: LayerWriter) -> int:
    """Write a layout in sorted order. Returns the newest modification time among its host files, seconds.

    Files keep their times, in whole seconds: Python's compiled modules are valid for one time of their source. All
    else has time 0; owners are root; modes are the host's.
    """
    newest = 0
    for path in sorted(layout.nodes):
        node, name = layout.nodes[path], path.lstrip("/")
        if isinstance(node, HostFile):
            newest = max(newest, _write_file(layer, name, node))
        elif isinstance(node, Link):
            layer.add(symlink_entry(name, node.target))
        elif isinstance(node, Text):
            layer.add(file_entry(name, len(node.content), node.mode), BytesIO(node.content))
        elif name:
            layer.add(directory_entry(name, node.mode))
    return newest


def _write_file(layer: LayerWriter, name: str, node: HostFile) -> int:
    with open(node.path, "rb") as file:  # noqa: PTH123
        st = os.fstat(file.fileno())
        mtime = int(st.st_mtime)
        layer.add(file_entry(name, st.st_size, stat.S_IMODE(st.st_mode), mtime=mtime), file)
    return mtime


def _components(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _parents(path: str) -> Iterator[str]:
    parts = _components(path)
    for depth in range(1, len(parts)):
        yield "/" + "/".join(parts[:depth])


def _readlink(path: str) -> str | None:
    try:
        return os.readlink(path)  # noqa: PTH115
    except OSError:
        return None


def _exists(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except OSError:
        return False
    return stat.S_ISREG(mode)
