"""The multi-version store: reads at any kept revision, writes that make the next one.

Rules (etcd v3): an empty store is at revision 1. A write takes the next main revision for every key it touches, and
only if it touches one. ``create_revision`` is the revision of the put that began the key's present life, ``version``
counts the puts since.
"""

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import NamedTuple

from protos.etcd.kv_pb2 import KeyValue
from raftstore.errors import Compacted, FutureRevision
from raftstore.mvcc import digest
from raftstore.mvcc.backend import Backend
from raftstore.mvcc.index import KeyIndex
from raftstore.mvcc.revision import Rev, is_tombstone, main_of, pack

_FACT_REVISION = b"mvcc/revision"
_FACT_COMPACTED = b"mvcc/compacted"


class Event(NamedTuple):
    """One change of one key. For a deletion ``kv`` has only key and mod_revision."""

    kv: KeyValue
    prev: KeyValue | None
    deleted: bool


class Store:
    """Keys and their history over a Backend. Single-threaded."""

    def __init__(self, backend: Backend) -> None:
        """Load the index of what the backend holds."""
        self.backend = backend
        self.index = KeyIndex()
        facts = backend.stored_facts(b"mvcc/")
        self.revision = int(facts.get(_FACT_REVISION, b"1"))
        self.compact_revision = int(facts.get(_FACT_COMPACTED, b"-1"))  # -1: nothing compacted yet
        self.digest = 0
        for rev, record in backend.history(Rev(0)):
            self.index.add(KeyValue.FromString(record).key, rev)
            self.digest = digest.plus(self.digest, digest.of_record(rev, record))

    # -- reading -------------------------------------------------------------------------------------------------

    def check_revision(self, revision: int) -> None:
        """Raise FutureRevision or Compacted unless ``revision`` can be read; 0 and below mean now."""
        if revision > self.revision:
            raise FutureRevision(f"revision {revision} is ahead of {self.revision}")
        if 0 < revision < self.compact_revision:
            raise Compacted(compact_revision=self.compact_revision)

    def find(self, key: bytes, range_end: bytes, revision: int = 0) -> list[Rev]:
        """Revisions visible at ``revision`` (<= 0: now) of the keys that ``key`` and ``range_end`` select, in order."""
        at = revision if revision > 0 else None
        if not range_end:
            rev = self.index.get(key, at)
            return [] if rev is None else [rev]
        return self.index.range(key, None if range_end == b"\0" else range_end, at)

    def load(self, rev: Rev) -> KeyValue:
        """The pair that a revision wrote."""
        return KeyValue.FromString(self.backend.record(rev))

    def get(self, key: bytes, revision: int = 0) -> KeyValue | None:
        """The pair at ``revision`` (<= 0: now), or None."""
        rev = self.index.get(key, revision if revision > 0 else None)
        return None if rev is None else self.load(rev)

    def live(self) -> Iterator[KeyValue]:
        """Every present pair, in key order."""
        return map(self.load, self.index.range(b"", None))

    def hash_at(self, revision: int) -> int:
        """A checksum of all that is kept up to ``revision``, 32 bits. Cheap for recent revisions."""
        value = self.digest
        for rev, record in self.backend.history(pack(revision + 1)):
            if self.index.has(KeyValue.FromString(record).key, rev):
                value = digest.minus(value, digest.of_record(rev, record))
        return digest.folded(value)

    def history(self, start_revision: int, wanted: Callable[[bytes], bool]) -> Iterator[tuple[int, list[Event]]]:
        """What happened from ``start_revision`` on: each main revision with its events of ``wanted`` keys, ascending.

        Previous pairs are those still kept. Nothing may be written meanwhile.
        """
        records = self.backend.history(pack(start_revision))
        for main, group in groupby(records, key=lambda item: main_of(item[0])):
            pairs = [(rev, KeyValue.FromString(record)) for rev, record in group]
            yield main, [self._event(rev, kv) for rev, kv in pairs if wanted(kv.key)]

    def _event(self, rev: Rev, kv: KeyValue) -> Event:
        deleted = is_tombstone(rev)
        if deleted:
            kv.mod_revision = main_of(rev)
        prev = None if not deleted and kv.version == 1 else self.get(kv.key, main_of(rev) - 1)
        return Event(kv, prev, deleted)

    # -- writing -------------------------------------------------------------------------------------------------

    def write(self) -> "Write":
        """Begin a write; nothing else may write until its ``end``."""
        return Write(self)

    def compact(self, revision: int) -> None:
        """Make history before ``revision`` unreadable. Raises Compacted or FutureRevision."""
        if revision <= self.compact_revision:
            raise Compacted(compact_revision=self.compact_revision)
        if revision > self.revision:
            raise FutureRevision(f"revision {revision} is ahead of {self.revision}")
        self.compact_revision = revision
        self.backend.set_fact(_FACT_COMPACTED, b"%d" % revision)
        dead = self.index.compact(revision)
        for rev in dead:
            self.digest = digest.minus(self.digest, digest.of_record(rev, self.backend.record(rev)))
        self.backend.discard(dead)

    def jump(self, revisions: int) -> None:
        """Go ahead by ``revisions`` without writing anything, and compact everything before."""
        self.revision += revisions
        self.compact(self.revision)

    def note_revision(self) -> None:
        """Have the next checkpoint remember the current revision, which its newest record may not show."""
        self.backend.set_fact(_FACT_REVISION, b"%d" % self.revision)


class Write:
    """The changes of one request: they share one main revision, and later reads in it see earlier changes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._main = store.revision + 1
        self.events: list[Event] = []

    def put(self, key: bytes, value: bytes, lease: int) -> KeyValue | None:
        """Set a key; returns the pair before."""
        store = self._store
        prev = store.get(key)
        kv = KeyValue(
            key=key,
            create_revision=prev.create_revision if prev else self._main,
            mod_revision=self._main,
            version=prev.version + 1 if prev else 1,
            value=value,
            lease=lease,
        )
        self._add(pack(self._main, len(self.events)), kv, kv.SerializeToString())
        self.events.append(Event(kv, prev, False))
        return prev

    def delete_range(self, key: bytes, range_end: bytes) -> list[KeyValue]:
        """Delete keys; returns the pairs before, in key order."""
        found = [self._store.load(rev) for rev in self._store.find(key, range_end)]
        for prev in found:
            self._delete(prev)
        return found

    def end(self) -> list[Event]:
        """Finish: the store moves to the new revision if anything changed. Returns the events."""
        if self.events:
            self._store.revision = self._main
        return self.events

    @property
    def revision(self) -> int:
        """The store's revision as this write's reads and responses see it: the new one once something changed."""
        return self._main if self.events else self._store.revision

    def _delete(self, prev: KeyValue) -> None:
        rev = pack(self._main, len(self.events), tombstone=True)
        self._add(rev, prev, KeyValue(key=prev.key).SerializeToString())
        self.events.append(Event(KeyValue(key=prev.key, mod_revision=self._main), prev, True))

    def _add(self, rev: Rev, kv: KeyValue, record: bytes) -> None:
        store = self._store
        store.backend.append(rev, record)
        store.index.add(kv.key, rev)
        store.digest = digest.plus(store.digest, digest.of_record(rev, record))
