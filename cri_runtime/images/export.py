"""An image's merged root file system as one tar stream: what a container of it would see."""

import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from cri_runtime.images.layer import CHUNK_BYTES, directory_entry, file_entry, symlink_entry
from cri_runtime.images.tree import Found, Rel, Stack, Tree
from cri_runtime.images.xattrs import kept_xattrs

_SPECIAL = {stat.S_IFIFO: tarfile.FIFOTYPE, stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE}


def export(lower: list[Path]) -> Iterator[bytes]:
    """The tar of layers (topmost first), sorted, parents first. The same layers give the same bytes. Blocks.

    Raises OSError.
    """
    with ExitStack() as opened:
        stack = Stack([opened.enter_context(Tree(path)) for path in lower])
        links: dict[tuple[int, int], str] = {}
        for rel, found in _walk(stack):
            yield from _entry(stack, rel, found, links)
    yield b"\0" * tarfile.BLOCKSIZE * 2


def _walk(stack: Stack, at: Rel = ()) -> Iterator[tuple[Rel, Found]]:
    for name in stack.listdir(at) if stack.trees else ():
        rel = (*at, name)
        found = stack.lookup(rel)
        if found is not None:
            yield rel, found
            if found.is_dir:
                yield from _walk(stack, rel)


def _entry(stack: Stack, rel: Rel, found: Found, links: dict[tuple[int, int], str]) -> Iterator[bytes]:
    st, name = found.st, "/".join(rel)
    kind, common = stat.S_IFMT(st.st_mode), (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, int(st.st_mtime))
    if kind == stat.S_IFDIR:
        yield directory_entry(name, *common).tobuf(tarfile.PAX_FORMAT)
    elif kind == stat.S_IFLNK:
        yield symlink_entry(name, stack.readlink(rel) or "", *common[1:]).tobuf(tarfile.PAX_FORMAT)
    elif kind in _SPECIAL:
        special = file_entry(name, 0, *common)
        special.type = _SPECIAL[kind]
        special.devmajor, special.devminor = os.major(st.st_rdev), os.minor(st.st_rdev)
        yield special.tobuf(tarfile.PAX_FORMAT)
    elif kind == stat.S_IFREG:
        first = links.setdefault((st.st_dev, st.st_ino), name)
        if st.st_nlink > 1 and first != name:
            hard = file_entry(name, 0, *common)
            hard.type, hard.linkname = tarfile.LNKTYPE, first
            yield hard.tobuf(tarfile.PAX_FORMAT)
            return
        yield from _content(rel, found, common)


def _content(rel: Rel, found: Found, common: tuple[int, int, int, int]) -> Iterator[bytes]:
    with open(found.tree.open(rel), "rb") as file:  # noqa: PTH123 (a descriptor)
        entry = file_entry("/".join(rel), found.st.st_size, *common)
        entry.pax_headers = kept_xattrs(file.fileno())
        yield entry.tobuf(tarfile.PAX_FORMAT)
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
    yield b"\0" * (-found.st.st_size % tarfile.BLOCKSIZE)
