"""Parts of the multi-version store by themselves."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftstore.errors import InvariantBroken
from raftstore.mvcc.backend import Backend
from raftstore.mvcc.index import KeyIndex
from raftstore.mvcc.revision import Rev, from_key, is_tombstone, main_of, pack, to_key
from raftstore.mvcc.sorted_keys import SortedKeys
from raftstore.mvcc.store import Store


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    backend = Backend(tmp_path, 64 << 20)
    yield backend
    backend.close()


def checkpoint(backend: Backend) -> None:
    backend.write(backend.take_checkpoint())
    backend.finish_checkpoint()


@pytest.mark.parametrize("rev", [pack(1), pack(2**40, 7), pack(3, 2**30, True)])
def test_revision_goes_to_a_database_key_and_back(rev: Rev) -> None:
    assert from_key(to_key(rev)) == rev


def test_database_keys_sort_as_revisions_do() -> None:
    revs = [pack(1), pack(1, 0, True), pack(1, 1), pack(2), pack(256), pack(65536, 300)]
    assert sorted(map(to_key, revs)) == [to_key(rev) for rev in sorted(revs)]
    assert (main_of(revs[1]), is_tombstone(revs[1]), is_tombstone(revs[2])) == (1, True, False)


def test_sorted_keys_are_a_sorted_set() -> None:
    dice = random.Random(1)
    ours, model = SortedKeys(), set()
    for _ in range(20_000):
        key = b"%d" % dice.randrange(8_000)
        if key in model:
            model.remove(key)
            ours.remove(key)
        else:
            model.add(key)
            ours.add(key)
    assert len(ours) == len(model)
    for start, end in [(b"", None), (b"3", b"5"), (b"", b"1"), (b"9", None), (b"5", b"3")]:
        assert list(ours.range(start, end)) == sorted(k for k in model if start <= k and (end is None or k < end))


def test_compaction_keeps_a_tombstone_of_its_own_revision_for_watchers_that_start_there() -> None:
    index = KeyIndex()
    index.add(b"a", pack(2))
    index.add(b"a", pack(3, tombstone=True))
    assert index.compact(3) == [pack(2)]
    assert index.has(b"a", pack(3, tombstone=True))
    assert index.compact(4) == [pack(3, tombstone=True)]
    assert index.range(b"", None) == []


def test_records_are_readable_before_during_and_after_a_checkpoint(backend: Backend) -> None:
    backend.append(pack(2), b"two")
    assert backend.record(pack(2)) == b"two"
    taken = backend.take_checkpoint()
    backend.append(pack(3), b"three")
    assert backend.record(pack(2)) == b"two"
    backend.write(taken)
    assert list(backend.history(pack(2))) == [(pack(2), b"two"), (pack(3), b"three")]
    backend.finish_checkpoint()
    assert backend.record(pack(2)) == b"two"
    assert list(backend.history(pack(2))) == [(pack(2), b"two"), (pack(3), b"three")]
    assert list(backend.history(pack(3))) == [(pack(3), b"three")]


def test_facts_last_and_can_be_deleted(backend: Backend) -> None:
    backend.set_fact(b"a/1", b"x")
    backend.set_fact(b"b", b"y")
    checkpoint(backend)
    assert backend.stored_facts(b"a/") == {b"a/1": b"x"}
    backend.set_fact(b"a/1", b"")
    checkpoint(backend)
    assert backend.stored_facts() == {b"b": b"y"}


def test_an_index_without_its_record_stops_the_program(backend: Backend) -> None:
    with pytest.raises(InvariantBroken):
        backend.record(pack(9))


def test_compaction_makes_room_without_growing_the_file(backend: Backend) -> None:
    store = Store(backend)
    sizes = []
    for _ in range(30):
        for _ in range(50):
            write = store.write()
            write.put(b"key", bytes(2000), 0)
            write.end()
        store.compact(store.revision)
        checkpoint(backend)
        sizes.append(backend.size_bytes()[0])
    assert sizes[-1] <= sizes[5]
    assert backend.size_bytes()[1] < sizes[-1] // 2
