"""A copy of a member's database in one file, and new members made from it.

The file is an LMDB database followed by the SHA-256 of it, as ``etcdctl snapshot save`` writes what a member streams.
A restored member begins a new cluster: new identity, empty log, no members. Its revision jumps ahead and all before the
jump counts as compacted: a client that remembers the old cluster is told to list again, and can neither wait for
revisions that come a second time nor believe that nothing happened.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

import lmdb

from raftstore.auth.tokens import SimpleTokens
from raftstore.config import Config
from raftstore.errors import StorageError
from raftstore.machine import Machine
from raftstore.mvcc.backend import Backend
from raftstore.raft.types import HardState
from raftstore.wal.fs import OSFS, sync_directory
from raftstore.wal.wal import Identity, Wal

BUMP_REVISION = 1_000_000_000
"""How far a restored store jumps: more than any cluster writes between the snapshot and its own end."""

_DIGEST_BYTES = hashlib.sha256().digest_size
_PAGE_BYTES = 512  # what a snapshot's database is a multiple of, as etcdctl demands
_MAGIC = Struct("<16xI")  # where LMDB and bbolt have the magic number of their first page
_LMDB, _BBOLT = 0xBEEFC0DE, 0xED0CDAED
_MAP_HEADROOM_BYTES = 64 << 20
_FIRST_INDEX = 2  # index 1 is the snapshot: a member that joins later has to get it, and not the log alone


@dataclass(frozen=True)
class Status:
    """What is in a snapshot."""

    hash: int
    revision: int
    keys: int
    size_bytes: int


def database_bytes(path: Path, check_digest: bool = True) -> int:
    """The size of the database in a snapshot file. Raises StorageError if it is not one of ours, or damaged."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_MAGIC.size)
            magic = _MAGIC.unpack(head)[0] if len(head) == _MAGIC.size else 0
            if magic == _BBOLT:
                raise StorageError(
                    f"{path} is a snapshot of etcd itself: start etcd from it and copy with etcdctl make-mirror"
                )
            if magic != _LMDB:
                raise StorageError(f"{path} is not a snapshot of this store")
            if size % _PAGE_BYTES == 0:  # a database taken from a data directory
                if check_digest:
                    raise StorageError(f"{path} has no checksum; if it is a plain copy, skip the check")
                return size
            if check_digest and not _digest_agrees(path, size - _DIGEST_BYTES):
                raise StorageError(f"{path} is damaged: its checksum is wrong")
            return size - _DIGEST_BYTES
    except OSError as err:
        if isinstance(err, StorageError):
            raise
        raise StorageError(f"cannot read {path}: {err.strerror}") from err


def _digest_agrees(path: Path, size: int) -> bool:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in _blocks(file.fileno(), size):
            digest.update(block)
        file.seek(size)
        return file.read() == digest.digest()


def _blocks(fd: int, size: int, block_bytes: int = 1 << 20) -> Iterator[bytes]:
    at = 0
    while at < size and (block := os.pread(fd, min(block_bytes, size - at), at)):
        yield block
        at += len(block)


def status(path: Path, scratch: Path) -> Status:
    """Look into a snapshot; ``scratch`` is an empty directory on a disk with room. Raises StorageError."""
    size = _extract(path, scratch, True)
    backend = Backend(scratch, size + _MAP_HEADROOM_BYTES)
    try:
        store = Machine(backend, SimpleTokens(lambda: 0.0)).store
        return Status(store.hash_at(store.revision), store.revision, len(store.index), size)
    finally:
        backend.close()


def restore(path: Path, config: Config, bump_revision: int = BUMP_REVISION, check_digest: bool = True) -> int:
    """Make ``config.data_dir`` that of a first member of a new cluster; returns the store's new revision.

    Every member of the new cluster is restored from the same file with the same ``bump_revision``. Raises StorageError
    when the directory exists or the snapshot is unusable, ValueError for settings that cannot work.
    """
    config.check()
    if config.data_dir.exists() and any(config.data_dir.iterdir()):
        raise StorageError(f"{config.data_dir} is not empty: restore into a new directory")
    size = database_bytes(path, check_digest)
    directory = config.data_dir / "member"
    for part in ("wal", "db"):
        (directory / part).mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        revision = _write_database(path, directory / "db", size, bump_revision)
        identity = Identity(config.cluster_id(), config.member_id(config.name))
        begun = HardState(term=1, vote=0, commit=_FIRST_INDEX - 1)
        Wal(OSFS(), directory / "wal", identity, first_index=_FIRST_INDEX, hard_state=begun).close()
        for made in (directory / "db", directory, config.data_dir, config.data_dir.absolute().parent):
            sync_directory(made)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return revision


def _write_database(path: Path, directory: Path, size: int, bump_revision: int) -> int:
    _extract(path, directory, False)
    backend = Backend(directory, 2 * size + _MAP_HEADROOM_BYTES)
    try:
        for fact in backend.stored_facts():
            if fact.startswith((b"raft/", b"alarm/", b"cluster/")):
                backend.set_fact(fact, b"")
        machine = Machine(backend, SimpleTokens(lambda: 0.0))
        if bump_revision > 0:
            machine.store.jump(bump_revision)
        machine.note_applied(_FIRST_INDEX - 1, 1)
        machine.before_checkpoint()
        backend.write(backend.take_checkpoint())
        return machine.store.revision
    finally:
        backend.close()


def _extract(path: Path, directory: Path, check_digest: bool) -> int:
    size = database_bytes(path, check_digest)
    with path.open("rb") as source, (directory / "data.mdb").open("wb") as target:
        for block in _blocks(source.fileno(), size):
            target.write(block)
        target.flush()
        os.fsync(target.fileno())
    return size


def copy(backend: Backend, fd: int) -> None:
    """Write the last checkpoint of ``backend`` to an open file, compacted. Blocks. Raises StorageError."""
    try:
        backend.copy_to(fd)
    except lmdb.Error as err:
        raise StorageError(f"cannot copy the database: {err}") from err
