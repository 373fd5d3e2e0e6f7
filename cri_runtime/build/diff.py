"""What a process changed: an overlay's upper directory as a layer.

overlayfs marks what is gone with character devices 0/0 and opaque attributes; layers mark it with ``.wh.`` names
(OCI image-spec, layer.md). A directory that was merely touched, because something below it changed, is no change.
"""

import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cri_runtime.images.entry import WHITEOUT_PREFIX
from cri_runtime.images.errors import UnsafeLayer
from cri_runtime.images.layer import LayerWriter, WrittenLayer, directory_entry, file_entry, symlink_entry
from cri_runtime.images.tree import Rel, Stack, Tree, is_whiteout
from cri_runtime.images.unpack import OPAQUE_MARKER
from cri_runtime.images.xattrs import kept_xattrs

_REDIRECT_XATTR = "trusted.overlay.redirect"
MOUNT_POINTS: frozenset[Rel] = frozenset(
    {("dev",), ("proc",), ("sys",), ("etc", "hostname"), ("etc", "hosts"), ("etc", "resolv.conf")}
)
"""What the runtime makes to mount on; not the process's doing."""


@dataclass(frozen=True)
class Change:
    """One entry of the layer. ``rel`` is its place, ``source`` the file whose content it has."""

    entry: tarfile.TarInfo
    source: Rel | None = None


def write_changes(
    upper: Tree,
    lower: Stack,
    writer: LayerWriter,
    mtime_max: int | None = None,
    mounted: Iterable[Rel] = (),
) -> WrittenLayer | None:
    """Write the layer of an upper directory; None when nothing changed. Blocks.

    ``mtime_max`` (seconds) cuts modification times, so that the same command gives the same layer. ``mounted`` are the
    places of further mounts: what was made to mount on, and is empty, is no change.
    Raises UnsafeLayer for a directory that overlayfs only renamed, which no layer can say.
    """
    count = 0
    for change in _Differ(upper, lower, mounted).changes():
        count += 1
        if mtime_max is not None:
            change.entry.mtime = min(change.entry.mtime, mtime_max)
        if change.source is None:
            writer.add(change.entry)
            continue
        with open(upper.open(change.source), "rb") as file:  # noqa: PTH123 (a descriptor)
            writer.add(change.entry, file)
    return writer.commit() if count else None


class _Differ:
    def __init__(self, upper: Tree, lower: Stack, mounted: Iterable[Rel]) -> None:
        self._upper = upper
        self._lower = lower
        self._made = {rel[:depth] for rel in mounted for depth in range(1, len(rel) + 1)}
        self._mount_points = MOUNT_POINTS | set(mounted)
        self._links: dict[tuple[int, int], str] = {}

    def changes(self, at: Rel = ()) -> Iterator[Change]:
        """The changes below the directory ``at``, sorted, parents first."""
        for name in sorted(self._upper.listdir(at)):
            rel = (*at, name)
            st = self._upper.lstat(rel)
            if st is None or self._is_mount_point(rel, st):
                continue
            if is_whiteout(st):
                yield Change(file_entry("/".join((*at, WHITEOUT_PREFIX + name)), 0))
            elif stat.S_ISDIR(st.st_mode):
                yield from self._directory(rel, st)
            elif not stat.S_ISSOCK(st.st_mode):
                yield self._file(rel, st)

    def _is_mount_point(self, rel: Rel, st: os.stat_result) -> bool:
        if rel not in self._mount_points or (rel not in MOUNT_POINTS and self._lower.lookup(rel)):
            return False
        if stat.S_ISDIR(st.st_mode):
            return not self._upper.listdir(rel)
        return stat.S_ISREG(st.st_mode) and st.st_size == 0

    def _directory(self, rel: Rel, st: os.stat_result) -> Iterator[Change]:
        if self._redirected(rel):
            raise UnsafeLayer(
                f'"/{"/".join(rel)}" was renamed in a way that no layer can say; copy and remove it instead'
            )
        opaque = self._upper.is_opaque(rel)
        below = list(self.changes(rel))
        if not opaque and not below and (self._is_as_before(rel, st) or self._was_made(rel)):
            return
        entry = directory_entry("/".join(rel), *_attributes(st))
        with self._upper.directory(rel) as fd:
            entry.pax_headers = kept_xattrs(fd)
        yield Change(entry)
        if opaque:
            yield Change(file_entry("/".join((*rel, OPAQUE_MARKER)), 0))
        yield from below

    def _was_made(self, rel: Rel) -> bool:
        """Whether an empty directory is there only to reach a mount."""
        return rel in self._made and self._lower.lookup(rel) is None

    def _is_as_before(self, rel: Rel, st: os.stat_result) -> bool:
        before = self._lower.lookup(rel)
        if before is None or not before.is_dir:
            return False
        return (before.st.st_mode, before.st.st_uid, before.st.st_gid) == (st.st_mode, st.st_uid, st.st_gid)

    def _redirected(self, rel: Rel) -> bool:
        try:
            with self._upper.directory(rel) as fd:
                return bool(os.getxattr(fd, _REDIRECT_XATTR))
        except OSError:
            return False

    def _file(self, rel: Rel, st: os.stat_result) -> Change:
        name, kind = "/".join(rel), stat.S_IFMT(st.st_mode)
        if kind == stat.S_IFLNK:
            return Change(symlink_entry(name, self._upper.readlink(rel) or "", st.st_uid, st.st_gid, int(st.st_mtime)))
        if kind != stat.S_IFREG:
            return Change(_special(name, st))
        first = self._links.setdefault((st.st_dev, st.st_ino), name) if st.st_nlink > 1 else name
        if first != name:
            entry = file_entry(name, 0, *_attributes(st))
            entry.type, entry.linkname = tarfile.LNKTYPE, first
            return Change(entry)
        entry = file_entry(name, st.st_size, *_attributes(st))
        fd = self._upper.open(rel)
        try:
            entry.pax_headers = kept_xattrs(fd)
        finally:
            os.close(fd)
        return Change(entry, rel)


def _attributes(st: os.stat_result) -> tuple[int, int, int, int]:
    """Mode, owner, group, modification time in whole seconds."""
    return stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, int(st.st_mtime)


def _special(name: str, st: os.stat_result) -> tarfile.TarInfo:
    entry = file_entry(name, 0, *_attributes(st))
    entry.type = {stat.S_IFIFO: tarfile.FIFOTYPE, stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE}[
        stat.S_IFMT(st.st_mode)
    ]
    entry.devmajor, entry.devminor = os.major(st.st_rdev), os.minor(st.st_rdev)
    return entry
