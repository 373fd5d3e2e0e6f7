"""The multi-version store against the most naive model there is: one plain dict per revision."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protos.etcd.kv_pb2 import KeyValue
from raftstore.errors import Compacted, FutureRevision
from raftstore.mvcc.backend import Backend
from raftstore.mvcc.store import Store

keys = st.sampled_from([b"\0", b"a", b"a\0", b"ab", b"b", b"\xff", b"x" * 600])
ends = st.sampled_from([b"", b"\0", b"b", b"\xff", b"a"])
values = st.binary(max_size=3)

Snapshot = dict[bytes, KeyValue]


class StoreMachine(RuleBasedStateMachine):
    """Whatever is done, every revision that is not compacted reads as its dict."""

    @initialize()
    def start(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="knarr-mvcc"))
        self.backend = Backend(self.directory, 64 << 20)
        self.store = Store(self.backend)
        self.snapshots: dict[int, Snapshot] = {1: {}}
        self.changes: dict[int, list[tuple[bytes, bool]]] = {}
        self.compacted = -1

    def teardown(self) -> None:
        self.backend.close()
        shutil.rmtree(self.directory)

    @rule(pairs=st.lists(st.tuples(keys, values), min_size=1, max_size=3, unique_by=lambda pair: pair[0]))
    def put(self, pairs: list[tuple[bytes, bytes]]) -> None:
        write = self.store.write()
        after = dict(self.latest)
        revision = self.revision + 1
        for key, value in pairs:
            prev = after.get(key)
            assert write.put(key, value, 0) == prev
            created = prev.create_revision if prev else revision
            version = prev.version + 1 if prev else 1
            after[key] = KeyValue(key=key, value=value, create_revision=created, mod_revision=revision, version=version)
        write.end()
        self.snapshots[revision] = after
        self.changes[revision] = [(key, False) for key, _ in pairs]

    @rule(key=keys, end=ends)
    def delete(self, key: bytes, end: bytes) -> None:
        hit = self.select(self.latest, key, end)
        write = self.store.write()
        assert write.delete_range(key, end) == hit
        write.end()
        if hit:
            gone = {kv.key for kv in hit}
            revision = self.revision + 1
            self.changes[revision] = [(kv.key, True) for kv in hit]
            self.snapshots[revision] = {k: kv for k, kv in self.latest.items() if k not in gone}

    @rule(back=st.integers(-1, 8))
    def compact(self, back: int) -> None:
        revision = self.revision - back
        if revision > self.revision:
            with pytest.raises(FutureRevision):
                self.store.compact(revision)
        elif revision <= self.compacted:
            with pytest.raises(Compacted):
                self.store.compact(revision)
        else:
            self.store.compact(revision)
            self.compacted = revision

    @rule()
    def checkpoint(self) -> None:
        self.store.note_revision()
        self.backend.write(self.backend.take_checkpoint())
        self.backend.finish_checkpoint()

    @rule()
    def restart(self) -> None:
        self.checkpoint()
        self.backend.close()
        self.backend = Backend(self.directory, 64 << 20)
        self.store = Store(self.backend)

    @precondition(lambda self: self.compacted > 0)
    @rule(back=st.integers(1, 3))
    def compacted_revisions_are_refused(self, back: int) -> None:
        if self.compacted - back > 0:
            with pytest.raises(Compacted):
                self.store.check_revision(self.compacted - back)

    @rule(back=st.integers(0, 8))
    def history_is_what_happened(self, back: int) -> None:
        start = max(self.revision - back, self.compacted, 1)
        seen = dict(self.store.history(start, lambda key: True))
        kept = {rev for rev in self.changes if rev > max(start - 1, self.compacted)}
        assert kept <= set(seen)
        for revision in kept:
            assert [(event.kv.key, event.deleted) for event in seen[revision]] == self.changes[revision]
            for event in seen[revision]:
                prev = self.snapshots[revision - 1].get(event.kv.key)
                assert event.prev == prev or (event.prev is None and revision - 1 < self.compacted)

    @invariant()
    def every_kept_revision_reads_as_its_dict(self) -> None:
        if not hasattr(self, "store"):
            return
        assert self.store.revision == self.revision
        for revision in range(max(self.compacted, 1, self.revision - 6), self.revision + 1):
            snapshot = self.snapshots[revision]
            for end in (b"\0", b"b"):
                found = [self.store.load(rev) for rev in self.store.find(b"\0", end, revision)]
                assert found == self.select(snapshot, b"\0", end)
            for key in (b"a", b"x" * 600):
                assert self.store.get(key, revision) == snapshot.get(key)

    @property
    def revision(self) -> int:
        return max(self.snapshots)

    @property
    def latest(self) -> Snapshot:
        return self.snapshots[self.revision]

    @staticmethod
    def select(snapshot: Snapshot, key: bytes, end: bytes) -> list[KeyValue]:
        if not end:
            return [snapshot[key]] if key in snapshot else []
        return [snapshot[k] for k in sorted(snapshot) if key <= k and (end == b"\0" or k < end)]


StoreMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestStoreAgreesWithOneDictPerRevision = StoreMachine.TestCase
