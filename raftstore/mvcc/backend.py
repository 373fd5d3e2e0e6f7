"""Where revisions and the rest of the state rest: LMDB, written in whole checkpoints.

New records first live in memory. Every so often all of them, the facts that changed and the index of the last log
entry they contain are written in one LMDB transaction with full synchronisation, on the caller's storage thread. The
write-ahead log keeps every entry that is not yet in a finished checkpoint, so replay from the stored applied index is
exact, and the database is never in a state that power loss could tear (LMDB's unsynchronised modes are, see README).
"""

import os
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import lmdb

from raftstore.errors import DiskFull, InvariantBroken, StorageError, check
from raftstore.metrics import Histogram
from raftstore.mvcc.revision import Rev, from_key, to_key

_NO_FACT = b""
_ROOM_BYTES = 16 << 20  # with less than that a disk is as good as full


@dataclass(frozen=True)
class Checkpoint:
    """One atomic step of the database. Frozen when taken: nothing in it changes any more."""

    records: dict[Rev, bytes]
    dead: list[Rev]
    facts: dict[bytes, bytes]
    """Named facts; an empty value deletes the fact."""


class Backend:
    """Records by revision, and named facts. All methods belong to one thread, except ``write``."""

    def __init__(self, path: Path, map_bytes: int) -> None:
        """Open or create the database file in the directory ``path``. Raises StorageError."""
        try:
            self._env = lmdb.open(str(path), map_size=map_bytes, max_dbs=2, meminit=False, max_spare_txns=2)
            self._db_records = self._env.open_db(b"key")
            self._db_facts = self._env.open_db(b"facts")
        except lmdb.Error as err:
            raise StorageError(f"cannot open the database in {path}: {err}") from err
        self._read = self._env.begin()
        self._new: dict[Rev, bytes] = {}
        self._writing: dict[Rev, bytes] = {}
        self._dead: list[Rev] = []
        self._facts: dict[bytes, bytes] = {}
        self.pending_bytes = 0
        self.commit_durations = Histogram()

    def close(self) -> None:
        """Release the database. What was not checkpointed is in the log."""
        self._read.abort()
        self._env.close()

    # -- records -------------------------------------------------------------------------------------------------

    def record(self, rev: Rev) -> bytes:
        """The record of a revision that the index knows."""
        found = self._new.get(rev) or self._writing.get(rev)
        if found is None:
            found = self._read.get(to_key(rev), db=self._db_records)
        if found is None:
            raise InvariantBroken(f"an indexed revision has a record ({to_key(rev).hex()})")
        return found

    def append(self, rev: Rev, record: bytes) -> None:
        """Add the record of a revision above all others."""
        self._new[rev] = record
        self.pending_bytes += len(record) + 24

    def discard(self, revs: list[Rev]) -> None:
        """Drop records that a compaction made unreachable."""
        for rev in revs:
            if self._new.pop(rev, None) is None:
                self._dead.append(rev)
        self.pending_bytes += 24 * len(revs)

    def history(self, start: Rev) -> Iterator[tuple[Rev, bytes]]:
        """Records from ``start`` on, ascending, dead ones perhaps included. Nothing may be added meanwhile."""
        cursor = self._read.cursor(db=self._db_records)
        if cursor.set_range(to_key(start)):
            for key, record in cursor:
                yield from_key(key), record
        for layer in (self._writing, self._new):
            revs = list(layer)
            for rev in revs[bisect_left(revs, start) :]:
                yield rev, layer[rev]

    # -- facts ---------------------------------------------------------------------------------------------------

    def set_fact(self, name: bytes, value: bytes) -> None:
        """Store a named fact with the next checkpoint; an empty ``value`` deletes it."""
        self._facts[name] = value
        self.pending_bytes += len(name) + len(value)

    def stored_facts(self, prefix: bytes = b"") -> dict[bytes, bytes]:
        """The facts of the last finished checkpoint."""
        cursor = self._read.cursor(db=self._db_facts)
        found: dict[bytes, bytes] = {}
        if cursor.set_range(prefix):
            for name, value in cursor:
                if not name.startswith(prefix):
                    break
                found[name] = value
        return found

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def take_checkpoint(self) -> Checkpoint:
        """Everything not yet stored. One checkpoint at a time: ``write`` it, then call ``finish_checkpoint``."""
        check(not self._writing, "one checkpoint at a time")
        taken = Checkpoint(self._new, self._dead, self._facts)
        self._writing, self._new, self._dead, self._facts = self._new, {}, [], {}
        self.pending_bytes = 0
        return taken

    def write(self, checkpoint: Checkpoint) -> None:
        """Store a checkpoint; durable on return. Blocks: runs on the storage thread.

        Raises DiskFull, after which it may be written again, or StorageError.
        """
        started = monotonic()
        try:
            with self._env.begin(write=True) as txn:
                cursor = txn.cursor(db=self._db_records)
                cursor.putmulti([(to_key(rev), record) for rev, record in checkpoint.records.items()], append=True)
                for rev in checkpoint.dead:
                    txn.delete(to_key(rev), db=self._db_records)
                for name, value in checkpoint.facts.items():
                    if value == _NO_FACT:
                        txn.delete(name, db=self._db_facts)
                    else:
                        txn.put(name, value, db=self._db_facts)
        except lmdb.Error as err:
            if isinstance(err, lmdb.DiskError | lmdb.MapFullError) or self._is_disk_full():
                raise DiskFull(f"cannot write the database {self._env.path()}: {err}") from err
            raise StorageError(f"cannot write the database {self._env.path()}: {err}") from err
        self.commit_durations.observe(monotonic() - started)

    def _is_disk_full(self) -> bool:
        """LMDB calls a write cut short by a full disk an input/output error."""
        disk = os.statvfs(self._env.path())
        return disk.f_bavail * disk.f_frsize < _ROOM_BYTES

    def finish_checkpoint(self) -> None:
        """Read from the database what ``write`` put there."""
        self._read.abort()
        self._read = self._env.begin()
        self._writing = {}

    def copy_to(self, fd: int) -> None:
        """Write a consistent copy of the database, without its free pages, to an open file. Blocks, on any thread."""
        self._env.copyfd(fd, compact=True)

    # -- size ----------------------------------------------------------------------------------------------------

    def size_bytes(self) -> tuple[int, int]:
        """Bytes of the database file, and of those how many hold data. Free pages are reused by later writes."""
        page = self._env.stat()["psize"]
        last_page = self._env.info()["last_pgno"] + 1
        used = sum(self._pages(db) for db in (self._db_records, self._db_facts)) + 4
        return last_page * page, min(used, last_page) * page + self.pending_bytes

    def _pages(self, db: Any) -> int:
        stat = self._read.stat(db)
        return stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
