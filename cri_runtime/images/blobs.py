"""The content-addressed blob store, shared by the image store and the registry.

On disk below ``root``::

    blobs/<algorithm>/<hex>    whole, verified blobs, never changed
    ingest/<random>            what is being written; emptied at start

Invariant: a file in ``blobs`` has the content its name says and is on stable storage. A blob is written to ``ingest``,
hashed on its way, fsynced, then renamed; so a kill at any instant leaves a whole blob or none.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cri_runtime.images.digest import Digest, Hasher
from cri_runtime.images.errors import BlobNotFound, ContentMismatch

ALGORITHMS = ("sha256", "sha512")


def fsync_directory(path: Path) -> None:
    """Make the names in ``path`` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class BlobWriter:
    """One blob on its way in. Use as a context manager: leaving without :meth:`commit` throws it away."""

    def __init__(self, store: "BlobStore", path: Path, algorithm: str) -> None:
        self._store = store
        self.path = path
        self._file = path.open("xb", buffering=0)
        self._hasher = Hasher(algorithm)
        self.size = 0
        """Bytes taken so far."""

    def __enter__(self) -> "BlobWriter":
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    def write(self, data: bytes | memoryview) -> int:
        """Append ``data``. Raises OSError when the disk is full."""
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self._hasher.update(data)
        self.size += len(data)
        return len(data)

    def commit(self, digest: Digest | None = None, size: int | None = None) -> Digest:
        """Make the blob durable under its digest, which is returned. Blocks for the fsync.

        Raises ContentMismatch when ``digest`` or ``size`` is given and is another; nothing is stored then.
        """
        found = self._digest(digest.algorithm if digest else None)
        if size is not None and size != self.size:
            raise ContentMismatch(f"{digest or found}: got {self.size} bytes where {size} were promised")
        if digest is not None and digest != found:
            raise ContentMismatch(f"{digest}: the content that arrived has the digest {found}")
        os.fsync(self._file.fileno())
        self._store.adopt(self.path, found)
        return found

    def _digest(self, algorithm: str | None) -> Digest:
        """The digest by the wanted algorithm; read again when another was counted on."""
        if algorithm in (None, self._hasher.algorithm):
            return self._hasher.digest()
        hasher = Hasher(str(algorithm))
        with self.path.open("rb") as file:
            while chunk := file.read(1 << 20):
                hasher.update(chunk)
        return hasher.digest()


class BlobStore:
    """Blobs by digest below one directory. One process owns it. Methods block; long ones belong in a thread."""

    def __init__(self, root: Path) -> None:
        """Open or make the store; what a killed writer left is removed."""
        self._blobs = root / "blobs"
        self._ingest = root / "ingest"
        self.fresh: set[Digest] = set()
        """What was stored since the owner last cleared this; spared by :meth:`sweep`."""
        shutil.rmtree(self._ingest, ignore_errors=True)
        self._ingest.mkdir(parents=True, mode=0o700)
        for algorithm in ALGORITHMS:
            (self._blobs / algorithm).mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, digest: Digest) -> Path:
        """Where the blob lies or would lie."""
        return self._blobs / digest.algorithm / digest.hex

    def __contains__(self, digest: Digest) -> bool:
        return self.path(digest).exists()

    def size(self, digest: Digest) -> int:
        """Bytes of the blob. Raises BlobNotFound."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError as err:
            raise BlobNotFound(f"no blob {digest}") from err

    def open(self, digest: Digest) -> BinaryIO:
        """The blob for reading; the caller closes it. Raises BlobNotFound."""
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError as err:
            raise BlobNotFound(f"no blob {digest}") from err

    def read(self, digest: Digest) -> bytes:
        """The whole of a small blob. Raises BlobNotFound."""
        with self.open(digest) as file:
            return file.read()

    def writer(self, algorithm: str = "sha256") -> BlobWriter:
        """Start a blob."""
        return BlobWriter(self, self.scratch(), algorithm)

    def scratch(self) -> Path:
        """A fresh path in ``ingest``, for a file or directory of the caller's."""
        return self._ingest / secrets.token_hex(8)

    def put(self, data: bytes, digest: Digest | None = None) -> Digest:
        """Store a small blob. Raises ContentMismatch."""
        with self.writer(digest.algorithm if digest else "sha256") as writer:
            writer.write(data)
            return writer.commit(digest)

    def adopt(self, path: Path, digest: Digest) -> None:
        """Take a fsynced file of the same file system whose content is known to have ``digest``."""
        target = self.path(digest)
        self.fresh.add(digest)
        path.replace(target)
        fsync_directory(target.parent)

    def delete(self, digest: Digest) -> int:
        """Remove a blob and return the bytes freed; absent is 0."""
        path = self.path(digest)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size

    def digests(self) -> Iterator[Digest]:
        """All blobs, in no order."""
        for algorithm in ALGORITHMS:
            for path in (self._blobs / algorithm).iterdir():
                yield Digest(f"{algorithm}:{path.name}")

    def sweep(self, keep: set[Digest]) -> int:
        """Remove every blob that is neither in ``keep`` nor fresh; returns the bytes freed."""
        return sum(self.delete(digest) for digest in list(self.digests()) if digest not in keep | self.fresh)

    def usage(self) -> tuple[int, int]:
        """Bytes and number of blobs."""
        sizes = [self.path(digest).stat().st_size for digest in list(self.digests())]
        return sum(sizes), len(sizes)
