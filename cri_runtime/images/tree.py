"""Directory trees addressed by descriptor, and stacks of them as overlayfs would show them.

A path inside an image is a tuple of names, ``("usr", "bin")``; ``()`` is the root. Nothing here ever hands the kernel
a path with more than one component, so no symbolic link of an image can lead out of its tree.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cri_runtime.images.errors import UnsafeLayer

Rel = tuple[str, ...]

OPAQUE_XATTR = "trusted.overlay.opaque"
SYMLINKS_MAX = 40
"""How many links one path may cross; the kernel's own bound."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCKED = (errno.ENOTDIR, errno.ELOOP)


def split(path: str) -> Rel:
    """The names of an image path; leading ``/`` and ``.`` do not count. ``..`` stays: :func:`resolve` bounds it."""
    return tuple(name for name in path.split("/") if name not in ("", "."))


def is_whiteout(st: os.stat_result) -> bool:
    """Whether overlayfs takes this for "nothing here": a character device 0/0."""
    return stat.S_ISCHR(st.st_mode) and st.st_rdev == 0


def resolve(path: Rel, readlink: Callable[[Rel], str | None], follow_last: bool = False) -> Rel:
    """The canonical place of ``path`` in an image: links followed, ``..`` stopping at the root. Pure.

    ``readlink`` gives the target of the link at a canonical place, None for anything else. The last component is
    followed only with ``follow_last``. Raises UnsafeLayer past SYMLINKS_MAX links.
    """
    done: list[str] = []
    todo = list(reversed(path))
    links = 0
    while todo:
        name = todo.pop()
        if name == "..":
            del done[-1:]
            continue
        place = (*done, name)
        target = readlink(place) if todo or follow_last else None
        if target is None:
            done.append(name)
            continue
        links += 1
        if links > SYMLINKS_MAX:
            raise UnsafeLayer(f'"{"/".join(path)}" crosses more than {SYMLINKS_MAX} symbolic links')
        if target.startswith("/"):
            done.clear()
        todo.extend(reversed(split(target)))
    return tuple(done)


class Tree:
    """One directory of this host as an image tree. Close it, or use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, _DIRECTORY)

    def close(self) -> None:
        """Close the root's descriptor."""
        os.close(self.fd)

    def __enter__(self) -> "Tree":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @contextmanager
    def directory(self, rel: Rel) -> Iterator[int]:
        """A descriptor of the directory ``rel``. Raises OSError: ENOENT, or ENOTDIR/ELOOP for another kind of file."""
        fd = os.dup(self.fd)
        try:
            for name in rel:
                inner = os.open(name, _DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = inner
            yield fd
        finally:
            os.close(fd)

    def lstat(self, rel: Rel) -> os.stat_result | None:
        """The file's own attributes; None when it or a parent is not there or no directory."""
        if not rel:
            return os.fstat(self.fd)
        try:
            with self.directory(rel[:-1]) as parent:
                return os.stat(rel[-1], dir_fd=parent, follow_symlinks=False)
        except OSError as err:
            if err.errno == errno.ENOENT or err.errno in _BLOCKED:
                return None
            raise

    def readlink(self, rel: Rel) -> str | None:
        """A link's target; None for anything else."""
        if not rel:
            return None
        try:
            with self.directory(rel[:-1]) as parent:
                return os.readlink(rel[-1], dir_fd=parent)
        except OSError as err:
            if err.errno in (errno.ENOENT, errno.EINVAL, *_BLOCKED):
                return None
            raise

    def open(self, rel: Rel) -> int:
        """A descriptor for reading the regular file ``rel``. Raises OSError."""
        with self.directory(rel[:-1]) as parent:
            return os.open(rel[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)

    def listdir(self, rel: Rel) -> list[str]:
        """The names in the directory ``rel``. Raises OSError."""
        with self.directory(rel) as fd:
            return os.listdir(fd)  # noqa: PTH208 (a descriptor is no path)

    def is_opaque(self, rel: Rel) -> bool:
        """Whether the directory ``rel`` hides what trees below it have there."""
        try:
            with self.directory(rel) as fd:
                return os.getxattr(fd, OPAQUE_XATTR) == b"y"
        except OSError:
            return False


@dataclass(frozen=True)
class Found:
    """A file as a stack shows it: its attributes and the tree it comes from."""

    st: os.stat_result
    tree: Tree

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.st.st_mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.st.st_mode)


class Stack:
    """Trees over one another, topmost first, read as overlayfs merges them. Places are canonical."""

    def __init__(self, trees: Sequence[Tree]) -> None:
        self.trees = tuple(trees)

    def lookup(self, rel: Rel) -> Found | None:
        """What is at ``rel``; its parents must be directories of the stack."""
        for tree in self._candidates(rel):
            st = tree.lstat(rel)
            if st is not None:
                return None if is_whiteout(st) else Found(st, tree)
        return None

    def readlink(self, rel: Rel) -> str | None:
        """The target of the link at ``rel``; None for anything else."""
        found = self.lookup(rel)
        return found.tree.readlink(rel) if found and found.is_link else None

    def resolve(self, path: Rel, follow_last: bool = False) -> Rel:
        """The canonical place of ``path``. Raises UnsafeLayer."""
        return resolve(path, self.readlink, follow_last)

    def listdir(self, rel: Rel) -> list[str]:
        """The sorted names in the merged directory ``rel``."""
        names: set[str] = set()
        hidden: set[str] = set()
        for tree in self._candidates((*rel, "")):
            st = tree.lstat(rel)
            if st is None or not stat.S_ISDIR(st.st_mode):
                continue
            for name in tree.listdir(rel):
                entry = tree.lstat((*rel, name))
                if entry is not None and name not in hidden:
                    hidden.add(name)
                    if not is_whiteout(entry):
                        names.add(name)
        return sorted(names)

    def _candidates(self, rel: Rel) -> Iterator[Tree]:
        """The trees that may show something at ``rel``, topmost first, until one hides those below it."""
        for tree in self.trees:
            yield tree
            if self._hides(tree, rel):
                return

    @staticmethod
    def _hides(tree: Tree, rel: Rel) -> bool:
        """Whether a parent of ``rel`` in ``tree`` is no directory, or an opaque one."""
        for depth in range(1, len(rel)):
            st = tree.lstat(rel[:depth])
            if st is None:
                return False
            if not stat.S_ISDIR(st.st_mode) or tree.is_opaque(rel[:depth]):
                return True
        return False
