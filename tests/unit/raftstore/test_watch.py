"""Watchers: order, no gap, no repetition, whatever the pace of their sink."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from protos.etcd.rpc_pb2 import WatchCreateRequest, WatchResponse
from raftstore.mvcc.backend import Backend
from raftstore.mvcc.store import Store
from raftstore.watch import Encoded, Watcher, WatchHub, is_empty_range


class SlowSink:
    """Takes ``room`` deliveries, then is full until it is given room again."""

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.lagging: list[Watcher] = []
        self.responses: list[WatchResponse] = []
        self.compact_revision = 0

    def full(self) -> bool:
        return self.room <= 0

    def deliver(self, watcher: Watcher, events: Encoded) -> None:
        self.room -= 1
        self.responses.append(WatchResponse.FromString(events.joined))

    def lag(self, watcher: Watcher) -> None:
        self.lagging.append(watcher)

    def compacted(self, watcher: Watcher, compact_revision: int) -> None:
        self.compact_revision = compact_revision

    @property
    def revisions(self) -> list[int]:
        return [event.kv.mod_revision for response in self.responses for event in response.events]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    backend = Backend(tmp_path, 64 << 20)
    yield Store(backend)
    backend.close()


@pytest.fixture
def hub(store: Store) -> WatchHub:
    return WatchHub(store)


def put(store: Store, hub: WatchHub, *keys: bytes) -> None:
    write = store.write()
    for key in keys:
        write.put(key, b"v", 0)
    hub.publish(write.end())


def delete(store: Store, hub: WatchHub, key: bytes) -> None:
    write = store.write()
    write.delete_range(key, b"")
    hub.publish(write.end())


def watcher(sink: SlowSink, start: int, **request: object) -> Watcher:
    return Watcher(0, WatchCreateRequest(**{"key": b"a", **request}), start, sink)


def test_a_current_watcher_hears_its_keys_only(store: Store, hub: WatchHub) -> None:
    one, many = SlowSink(), SlowSink()
    hub.add(watcher(one, 2))
    hub.add(watcher(many, 2, range_end=b"c"))
    put(store, hub, b"a")
    put(store, hub, b"b")
    put(store, hub, b"c")
    assert (one.revisions, many.revisions) == ([2], [2, 3])


def test_events_of_one_revision_come_in_one_response(store: Store, hub: WatchHub) -> None:
    sink = SlowSink()
    hub.add(watcher(sink, 2, range_end=b"\0"))
    put(store, hub, b"a", b"b", b"c")
    assert [len(response.events) for response in sink.responses] == [3]


def test_history_is_replayed_from_the_start_revision(store: Store, hub: WatchHub) -> None:
    for _ in range(5):
        put(store, hub, b"a")
    sink = SlowSink()
    hub.add(watcher(sink, 4))
    hub.catch_up(sink.lagging.pop())
    assert sink.revisions == [4, 5, 6]
    put(store, hub, b"a")
    assert sink.revisions == [4, 5, 6, 7]


def test_a_future_start_revision_is_waited_for(store: Store, hub: WatchHub) -> None:
    sink = SlowSink()
    hub.add(watcher(sink, 4))
    for _ in range(4):
        put(store, hub, b"a")
    assert sink.revisions == [4, 5]


def test_deletions_carry_key_and_revision_and_the_previous_pair_when_asked(store: Store, hub: WatchHub) -> None:
    plain, full = SlowSink(), SlowSink()
    hub.add(watcher(plain, 2))
    hub.add(watcher(full, 2, prev_kv=True))
    put(store, hub, b"a")
    delete(store, hub, b"a")
    event = full.responses[1].events[0]
    assert (event.type, event.kv.key, event.kv.mod_revision, event.kv.value) == (1, b"a", 3, b"")
    assert event.prev_kv.value == b"v"
    assert not full.responses[0].events[0].HasField("prev_kv")
    assert not plain.responses[1].events[0].HasField("prev_kv")


@pytest.mark.parametrize(("unwanted", "seen"), [([0], [3]), ([1], [2]), ([0, 1], [])])
def test_filters_drop_events_and_empty_responses(
    unwanted: list[int], seen: list[int], store: Store, hub: WatchHub
) -> None:
    sink = SlowSink()
    hub.add(watcher(sink, 2, filters=unwanted))
    put(store, hub, b"a")
    delete(store, hub, b"a")
    assert sink.revisions == seen
    assert all(response.events for response in sink.responses)


def test_history_gone_by_compaction_ends_the_watch(store: Store, hub: WatchHub) -> None:
    for _ in range(5):
        put(store, hub, b"a")
    store.compact(4)
    sink = SlowSink()
    hub.add(watcher(sink, 3))
    hub.catch_up(sink.lagging.pop())
    assert (sink.compact_revision, sink.responses) == (4, [])
    at_compaction = SlowSink()
    hub.add(watcher(at_compaction, 4))
    hub.catch_up(at_compaction.lagging.pop())
    assert at_compaction.revisions == [4, 5, 6]


@pytest.mark.parametrize("seed", range(30))
def test_a_slow_watcher_misses_and_repeats_nothing(seed: int, store: Store, hub: WatchHub) -> None:
    dice = random.Random(seed)
    sink, quick = SlowSink(room=1), SlowSink()
    hub.add(watcher(sink, 2, range_end=b"c"))
    hub.add(watcher(quick, 2, range_end=b"c"))
    for _ in range(200):
        if dice.random() < 0.7:
            put(store, hub, *dice.sample([b"a", b"b", b"x"], dice.randint(1, 3)))
        if dice.random() < 0.2:
            sink.room = dice.randint(1, 3)
        if sink.lagging and not sink.full():
            hub.catch_up(sink.lagging.pop())
        if dice.random() < 0.05:
            store.backend.write(store.backend.take_checkpoint())
            store.backend.finish_checkpoint()
    sink.room = 1000
    while sink.lagging:
        hub.catch_up(sink.lagging.pop())
    assert [event for r in sink.responses for event in r.events] == [e for r in quick.responses for e in r.events]


def test_a_long_history_is_replayed_in_steps(store: Store, hub: WatchHub) -> None:
    for _ in range(2500):
        put(store, hub, b"a")
    sink = SlowSink()
    hub.add(watcher(sink, 2))
    steps = 0
    while sink.lagging:
        hub.catch_up(sink.lagging.pop())
        steps += 1
    assert (steps, sink.revisions) == (3, list(range(2, 2502)))


def test_a_removed_watcher_hears_no_more(store: Store, hub: WatchHub) -> None:
    sink = SlowSink()
    one = watcher(sink, 2)
    hub.add(one)
    hub.remove(one)
    put(store, hub, b"a")
    assert sink.responses == []


def test_an_empty_range_is_told_apart() -> None:
    assert is_empty_range(WatchCreateRequest(key=b"b", range_end=b"a"))
    assert is_empty_range(WatchCreateRequest(key=b"b", range_end=b"b"))
    assert not is_empty_range(WatchCreateRequest(key=b"b", range_end=b"\0"))
    assert not is_empty_range(WatchCreateRequest(key=b"b"))
