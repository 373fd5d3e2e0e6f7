"""ADD's archives: which files are some, and their contents as a tree."""

import bz2
import lzma
import shutil
import tarfile
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

from cri_runtime.build.copy import Item, open_item
from cri_runtime.images.errors import UnsafeLayer
from cri_runtime.images.layer import LayerReader
from cri_runtime.images.tree import Tree
from cri_runtime.images.unpack import unpack


def unpack_archive(item: Item, scratch: Path, opened: ExitStack) -> Tree | None:
    """The contents of an archive, below ``scratch``, for as long as ``opened``; None when the file is none. Blocks.

    Raises UnsafeLayer, OSError.
    """
    with open_item(item) as probe, LayerReader(_decompressed(probe)) as reader:
        if not _is_archive(cast(BinaryIO, reader)):
            return None
    scratch.mkdir(mode=0o755)
    opened.callback(shutil.rmtree, scratch, ignore_errors=True)
    with open_item(item) as file, LayerReader(_decompressed(file)) as reader:
        unpack(reader, scratch, whiteouts=False)
    return opened.enter_context(Tree(scratch))


def _decompressed(file: BinaryIO) -> BinaryIO:
    """bzip2 and xz, which ADD knows and layers do not."""
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(b"BZh"):
        return cast(BinaryIO, bz2.BZ2File(file))
    if magic == b"\xfd7zXZ\0":
        return cast(BinaryIO, lzma.LZMAFile(file))
    return file


def _is_archive(file: BinaryIO) -> bool:
    """Whether the uncompressed bytes of ``file`` begin with a tar header."""
    try:
        return tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape").size >= 0
    except (tarfile.HeaderError, UnsafeLayer, EOFError, OSError):
        return False
