"""Unpacking layers, which are hostile input: nothing leaves the root, nothing is unbounded (OCI image-spec, layer.md).

A layer becomes one overlayfs lower directory. Whiteouts become character devices 0/0 and the opaque attribute, and
only where something below is there to hide: in a directory that is not merged, overlayfs would list them.

Links inside the image are followed inside the image, through the layers below too: an entry ``lib/x`` over a lower
layer's link ``lib -> usr/lib`` lands in ``usr/lib``, as it does where layers are applied to a mounted stack.
"""

import os
import shutil
import stat
import tarfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from cri_runtime.images.entry import (
    WHITEOUT_PREFIX,
    BoundedTarInfo,
    hidden_name,
    mtime_ns_of,
    names_of,
    owner_of,
    target_of,
)
from cri_runtime.images.errors import UnsafeLayer
from cri_runtime.images.layer import CHUNK_BYTES, LayerReader
from cri_runtime.images.tree import OPAQUE_XATTR, Found, Rel, Stack, Tree, is_whiteout, resolve
from cri_runtime.images.xattrs import KEPT_XATTRS, set_xattr, xattr_allowed

OPAQUE_MARKER = ".wh..wh..opq"
_AUFS_PREFIX = ".wh..wh."


@dataclass(frozen=True)
class Limits:
    """What one layer may cost. Beyond: UnsafeLayer."""

    entries: int = 2_000_000
    free_bytes: int = 1 << 30
    """Unpacked bytes that are never too many."""
    ratio: int = 200
    """Past ``free_bytes``: unpacked bytes per compressed byte."""


@dataclass(frozen=True)
class Usage:
    """What a layer takes: bytes of its files, and inodes."""

    size_bytes: int
    inodes: int


def unpack(
    layer: LayerReader,
    target: Path,
    lowers: Sequence[Path] = (),
    limits: Limits | None = None,
    whiteouts: bool = True,
) -> Usage:
    """Unpack ``layer`` into the empty directory ``target``, as the layer over ``lowers`` (topmost first).

    Without ``whiteouts`` it is a plain archive, in which ``.wh.x`` is a name like any other.
    Reads the tar to its end mark, not further: ``layer.diff_id()`` reads the rest. Blocks; for a thread.
    Raises UnsafeLayer naming the entry, OSError naming the path; ``target`` is then half-filled and the caller's to
    remove.
    """
    with _Unpacker(target, lowers, limits or Limits(), whiteouts) as unpacker:
        try:
            with _tar(layer) as tar:
                while (entry := tar.next()) is not None:
                    unpacker.take(tar, entry, layer)
                    tar.members.clear()  # type: ignore[attr-defined]  # it would keep every entry in memory
        except tarfile.TarError as err:
            raise UnsafeLayer(f"the layer is no proper tar stream: {err}") from err
        return unpacker.finish()


def _tar(layer: LayerReader) -> tarfile.TarFile:
    return tarfile.open(fileobj=layer, mode="r|", bufsize=CHUNK_BYTES, tarinfo=BoundedTarInfo)


class _Unpacker:
    """The state of one unpacking. Invariant: a place in ``_made`` is a directory of the upper tree, not a link."""

    def __init__(self, target: Path, lowers: Sequence[Path], limits: Limits, whiteouts: bool) -> None:
        self._open = ExitStack()
        self._upper = self._open.enter_context(Tree(target))
        trees = [self._open.enter_context(Tree(path)) for path in lowers]
        self._lower = Stack(trees)
        self._stack = Stack([self._upper, *trees])
        self._limits = limits
        self._whiteouts = whiteouts
        self._made: set[Rel] = {()}
        self._times: dict[Rel, int] = {}
        self._parent: tuple[Rel, int] = ((), os.dup(self._upper.fd))
        self._entries = self._bytes = self._inodes = 0

    def __enter__(self) -> "_Unpacker":
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self._parent[1])
        self._open.close()

    def take(self, tar: tarfile.TarFile, entry: tarfile.TarInfo, layer: LayerReader) -> None:
        """Apply one entry."""
        self._charge(entry, layer)
        names = names_of(entry.name)
        if not names:
            self._root(entry)
            return
        parent = self._directory(names[:-1], entry.name)
        name = names[-1]
        if not self._whiteouts or not name.startswith(WHITEOUT_PREFIX):
            self._make(tar, entry, (*parent, name))
        elif name == OPAQUE_MARKER:
            self._make_opaque(parent)
        elif name.startswith(_AUFS_PREFIX):
            pass  # bookkeeping of a file system that is gone
        else:
            self._whiteout((*parent, hidden_name(entry.name, name)))

    def finish(self) -> Usage:
        """Set the directories' times, which filling them has changed, and sum up."""
        for rel in sorted(self._times, key=len, reverse=True):
            with self._upper.directory(rel) as fd:
                os.utime(fd, ns=(self._times[rel], self._times[rel]))
        return Usage(self._bytes, self._inodes)

    def _charge(self, entry: tarfile.TarInfo, layer: LayerReader) -> None:
        self._entries += 1
        self._bytes += entry.size
        allowed = max(self._limits.free_bytes, self._limits.ratio * max(layer.compressed_bytes, CHUNK_BYTES))
        if self._entries > self._limits.entries:
            raise UnsafeLayer(f"the layer has more than {self._limits.entries} entries")
        if self._bytes > allowed:
            raise UnsafeLayer(f'"{entry.name}": the layer unpacks to over {self._limits.ratio} times its own size')

    # --- places

    def _at(self, rel: Rel) -> int:
        """The descriptor of the upper directory ``rel``; the last one is kept, entries come grouped."""
        if self._parent[0] != rel:
            with self._upper.directory(rel) as fd:
                kept = os.dup(fd)
            os.close(self._parent[1])
            self._parent = (rel, kept)
        return self._parent[1]

    def _directory(self, path: Rel, entry_name: str) -> Rel:
        """The canonical place of a parent path; made in the upper tree if it is not there."""
        if path in self._made:
            return path
        place = resolve(path, self._stack.readlink, follow_last=True)
        for depth in range(1, len(place) + 1):
            if place[:depth] not in self._made:
                self._ensure(place[:depth], entry_name)
        return place

    def _ensure(self, rel: Rel, entry_name: str) -> None:
        present = self._upper.lstat(rel)
        if present is None or is_whiteout(present):
            below = self._lower.lookup(rel) if present is None else None
            self._mkdir(rel, hide=present is not None)
            if below is not None and below.is_dir:
                self._copy_attributes(below, rel)
        elif not stat.S_ISDIR(present.st_mode):
            raise UnsafeLayer(f'"{entry_name}": "{"/".join(rel)}" is no directory')
        self._made.add(rel)

    def _mkdir(self, rel: Rel, hide: bool) -> None:
        """Make an upper directory; ``hide``: in place of a whiteout, whose work it takes over."""
        parent = self._at(rel[:-1])
        if hide:
            os.unlink(rel[-1], dir_fd=parent)
        os.mkdir(rel[-1], 0o755, dir_fd=parent)
        os.chmod(rel[-1], 0o755, dir_fd=parent)  # whatever the umask
        self._times.setdefault(rel, 0)
        self._inodes += 1
        if hide:
            self._set_opaque(rel)

    def _copy_attributes(self, below: Found, rel: Rel) -> None:
        with self._upper.directory(rel) as fd:
            os.fchown(fd, below.st.st_uid, below.st.st_gid)
            os.fchmod(fd, stat.S_IMODE(below.st.st_mode))
        self._times[rel] = below.st.st_mtime_ns

    # --- whiteouts

    def _make_opaque(self, rel: Rel) -> None:
        below = self._lower.lookup(rel)
        if below is None or not below.is_dir:
            return
        if rel:
            self._set_opaque(rel)
            return
        for name in self._lower.listdir(()):  # overlayfs merges roots whatever their attributes
            self._whiteout((name,))

    def _set_opaque(self, rel: Rel) -> None:
        with self._upper.directory(rel) as fd:
            os.setxattr(fd, OPAQUE_XATTR, b"y")

    def _whiteout(self, rel: Rel) -> None:
        """Hide what lies below at ``rel``; what this layer itself has there stays."""
        if self._lower.lookup(rel) is None:
            return
        present = self._upper.lstat(rel)
        if present is None:
            os.mknod(rel[-1], stat.S_IFCHR, os.makedev(0, 0), dir_fd=self._at(rel[:-1]))
            self._inodes += 1
        elif stat.S_ISDIR(present.st_mode):
            self._set_opaque(rel)

    # --- entries

    def _root(self, entry: tarfile.TarInfo) -> None:
        if entry.isdir():
            self._times[()] = mtime_ns_of(entry)
            self._set_attributes(self._upper.fd, entry)

    def _make(self, tar: tarfile.TarFile, entry: tarfile.TarInfo, rel: Rel) -> None:
        if entry.isdir():
            self._make_directory(entry, rel)
            return
        self._clear(rel)
        self._inodes += 1
        parent, name = self._at(rel[:-1]), rel[-1]
        if entry.islnk():
            self._link(entry, rel)
        elif entry.issym():
            os.symlink(target_of(entry), name, dir_fd=parent)
            self._set_owner_and_time(entry, parent, name)
        elif entry.isdev():
            _make_node(entry, parent, name)
            self._set_owner_and_time(entry, parent, name)
        elif entry.isfile():
            content = tar.extractfile(entry)
            if content is None:  # tarfile's word for an entry without bytes
                raise UnsafeLayer(f'"{entry.name}": a file without content')
            self._write(content, entry, parent, name)
        else:
            raise UnsafeLayer(f'"{entry.name}": tar entries of type {entry.type!r} are not known')

    def _make_directory(self, entry: tarfile.TarInfo, rel: Rel) -> None:
        present = self._upper.lstat(rel)
        if present is None or not stat.S_ISDIR(present.st_mode):
            hide = present is not None and is_whiteout(present)
            if not hide:
                self._clear(rel)
            self._mkdir(rel, hide)
            self._made.add(rel)
        with self._upper.directory(rel) as fd:
            self._set_attributes(fd, entry)
        self._times[rel] = mtime_ns_of(entry)

    def _clear(self, rel: Rel) -> None:
        """Remove what an earlier entry of this layer put at ``rel``."""
        present = self._upper.lstat(rel)
        if present is None:
            return
        parent = self._at(rel[:-1])
        if not stat.S_ISDIR(present.st_mode):
            os.unlink(rel[-1], dir_fd=parent)
            return
        shutil.rmtree(rel[-1], dir_fd=parent)
        self._made = {place for place in self._made if place[: len(rel)] != rel}
        self._times = {place: ns for place, ns in self._times.items() if place[: len(rel)] != rel}

    def _write(self, content: IO[bytes], entry: tarfile.TarInfo, parent: int, name: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            _copy(content, fd, sparse=entry.issparse())
            self._set_attributes(fd, entry)
            os.utime(fd, ns=(mtime_ns_of(entry), mtime_ns_of(entry)))
        finally:
            os.close(fd)

    def _link(self, entry: tarfile.TarInfo, rel: Rel) -> None:
        names = names_of(entry.linkname)
        place = self._stack.resolve(names)
        found = self._stack.lookup(place) if place else None
        if found is None or place == rel:
            raise UnsafeLayer(f'"{entry.name}": a hard link to "{entry.linkname}", which is not there')
        if found.is_dir:
            raise UnsafeLayer(f'"{entry.name}": a hard link to "{entry.linkname}", a directory')
        if found.tree is not self._upper:
            self._copy_up(found, place, entry.name)
        with self._upper.directory(place[:-1]) as source:
            os.link(place[-1], rel[-1], src_dir_fd=source, dst_dir_fd=self._at(rel[:-1]), follow_symlinks=False)

    def _copy_up(self, found: Found, rel: Rel, entry_name: str) -> None:
        """Bring a lower layer's file into this one, so that a link to it can be made."""
        if not stat.S_ISREG(found.st.st_mode):
            raise UnsafeLayer(f'"{entry_name}": a hard link to a lower layer\'s special file or link')
        self._directory(rel[:-1], entry_name)
        source = found.tree.open(rel)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(rel[-1], flags, 0o600, dir_fd=self._at(rel[:-1]))
        try:
            os.fchown(target, found.st.st_uid, found.st.st_gid)
            os.fchmod(target, stat.S_IMODE(found.st.st_mode))
            while os.sendfile(target, source, None, 1 << 30):
                pass
            for key in os.listxattr(source):
                os.setxattr(target, key, os.getxattr(source, key))
            os.utime(target, ns=(found.st.st_atime_ns, found.st.st_mtime_ns))
        finally:
            os.close(target)
            os.close(source)
        self._bytes += found.st.st_size
        self._inodes += 1

    # --- attributes

    def _set_attributes(self, fd: int, entry: tarfile.TarInfo) -> None:
        """Owner, mode, extended attributes, in the order in which none undoes another."""
        os.fchown(fd, *owner_of(entry))
        os.fchmod(fd, entry.mode & 0o7777)
        for key, value in entry.pax_headers.items():
            if key.startswith(KEPT_XATTRS) and xattr_allowed(key.removeprefix(KEPT_XATTRS)):
                set_xattr(fd, key.removeprefix(KEPT_XATTRS), value.encode("utf-8", "surrogateescape"))

    def _set_owner_and_time(self, entry: tarfile.TarInfo, parent: int, name: str) -> None:
        os.chown(name, *owner_of(entry), dir_fd=parent, follow_symlinks=False)
        if not entry.issym():
            os.chmod(name, entry.mode & 0o7777, dir_fd=parent)
        os.utime(name, ns=(mtime_ns_of(entry), mtime_ns_of(entry)), dir_fd=parent, follow_symlinks=False)


def _make_node(entry: tarfile.TarInfo, parent: int, name: str) -> None:
    """A fifo or device; using a device is for the container's cgroup to allow."""
    if entry.isfifo():
        os.mkfifo(name, 0o600, dir_fd=parent)
        return
    if not (0 <= entry.devmajor < 1 << 12 and 0 <= entry.devminor < 1 << 20):
        raise UnsafeLayer(f'"{entry.name}": no device {entry.devmajor}:{entry.devminor}')
    if entry.ischr() and (entry.devmajor, entry.devminor) == (0, 0):
        raise UnsafeLayer(f'"{entry.name}": a device that hides files of other layers')
    kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
    os.mknod(name, kind | 0o600, os.makedev(entry.devmajor, entry.devminor), dir_fd=parent)


def _copy(content: IO[bytes], fd: int, sparse: bool) -> None:
    size = 0
    while chunk := content.read(CHUNK_BYTES):
        size += len(chunk)
        if sparse and not any(chunk):
            os.lseek(fd, len(chunk), os.SEEK_CUR)
            continue
        view = memoryview(chunk)
        while view:
            view = view[os.write(fd, view) :]
    if sparse:
        os.ftruncate(fd, size)
