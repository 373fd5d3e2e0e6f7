"""Watchers: who gets which events, in what order. Knows no gRPC and no tasks.

A watcher is *current* when everything before the store's next revision has been handed to its sink: new events are then
pushed to it as they are applied. When its sink is full, or it starts in the past, it *lags*: the sink calls
``catch_up`` whenever it has room, and history is replayed from the database in steps until the watcher is current.
So no watcher holds up another, and none misses or repeats an event.
"""

from collections.abc import Sequence
from typing import Protocol

from protos.etcd.kv_pb2 import Event as EventMessage
from protos.etcd.rpc_pb2 import WatchCreateRequest, WatchResponse
from raftstore.limits import WATCH_BATCH_REVISIONS
from raftstore.mvcc.store import Event, Store


class Sink(Protocol):
    """Where a stream's watchers deliver."""

    def full(self) -> bool:
        """Whether it has no room for more events now."""

    def deliver(self, watcher: "Watcher", events: "Encoded") -> None:
        """Queue events behind all that was delivered before."""

    def lag(self, watcher: "Watcher") -> None:
        """The watcher lags: call ``catch_up`` for it once there is room."""

    def compacted(self, watcher: "Watcher", compact_revision: int) -> None:
        """The watcher's next revision is gone; it has been removed."""


class Encoded:
    """Events in wire form, shared by all watchers that see them alike."""

    def __init__(self, events: Sequence[Event], prev_kv: bool) -> None:
        self.pieces = [_encode(event, prev_kv) for event in events]

        self.joined = b"".join(self.pieces)
        """All events as the ``events`` field of a WatchResponse."""


def _encode(event: Event, prev_kv: bool) -> bytes:
    """One event as a field of a WatchResponse: concatenated messages are one message (protobuf encoding)."""
    message = EventMessage(kv=event.kv, prev_kv=event.prev if prev_kv else None)
    if event.deleted:
        message.type = EventMessage.DELETE
    return WatchResponse(events=[message]).SerializeToString()


class Watcher:
    """One watch. ``next_revision`` is the first revision whose events it may still have to deliver."""

    def __init__(self, id: int, request: WatchCreateRequest, next_revision: int, sink: Sink) -> None:
        self.id = id
        self.key = request.key or b"\0"
        self.end: bytes | None = _end_of(request)
        self.prev_kv = request.prev_kv
        self.fragment = request.fragment
        self.progress_notify = request.progress_notify
        self.wants_puts = WatchCreateRequest.NOPUT not in request.filters
        self.wants_deletes = WatchCreateRequest.NODELETE not in request.filters
        self.next_revision = next_revision
        self.sink = sink

    def wants_key(self, key: bytes) -> bool:
        """Whether the key lies in the watched range."""
        return self.key <= key and (self.end is None or key < self.end)

    def select(self, events: Sequence[Event]) -> Sequence[Event]:
        """Of events in the watched range those this watcher delivers."""
        if self.wants_puts and self.wants_deletes and self.next_revision <= events[0].kv.mod_revision:
            return events
        return [
            event
            for event in events
            if event.kv.mod_revision >= self.next_revision
            and (self.wants_deletes if event.deleted else self.wants_puts)
        ]


def _end_of(request: WatchCreateRequest) -> bytes | None:
    """The exclusive end of the watched range; None means no end."""
    if request.range_end == b"\0":
        return None
    return request.range_end or (request.key or b"\0") + b"\0"


def is_empty_range(request: WatchCreateRequest) -> bool:
    """Whether no key can lie in the watched range."""
    return bool(request.range_end) and request.range_end != b"\0" and request.range_end <= (request.key or b"\0")


class _Group:
    """The current watchers of one range."""

    def __init__(self, start: bytes, end: bytes | None) -> None:
        self.start = start
        self.end = end
        self.watchers: set[Watcher] = set()


class WatchHub:
    """All current watchers, grouped by range so that the cost of a write grows with ranges, not with watchers."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys: dict[bytes, _Group] = {}
        self._ranges: dict[tuple[bytes, bytes | None], _Group] = {}

    def count(self) -> int:
        """How many watchers are current."""
        groups = (*self._keys.values(), *self._ranges.values())
        return sum(len(group.watchers) for group in groups)

    def add(self, watcher: Watcher) -> None:
        """Start a watcher: current if it starts in the future, lagging if in the past."""
        if watcher.next_revision > self._store.revision:
            self._join(watcher)
        else:
            watcher.sink.lag(watcher)

    def remove(self, watcher: Watcher) -> None:
        """Stop a watcher; a lagging one is no longer known here anyway."""
        groups, name = self._place(watcher)
        group = groups.get(name)
        if group is not None:
            group.watchers.discard(watcher)
            if not group.watchers:
                del groups[name]

    def publish(self, events: Sequence[Event]) -> None:
        """Hand events just applied, ascending, to the current watchers."""
        if not self._keys and not self._ranges:
            return
        for group, hits in self._match(events):
            shared: dict[bool, Encoded] = {}
            for watcher in list(group.watchers):
                self._push(watcher, hits, shared)

    def catch_up(self, watcher: Watcher) -> None:
        """Replay one step of history to a lagging watcher; it joins, lags on, or is ended by a compaction."""
        store = self._store
        if watcher.next_revision < store.compact_revision:
            watcher.sink.compacted(watcher, store.compact_revision)
            return
        found: list[Event] = []
        steps = zip(range(WATCH_BATCH_REVISIONS), store.history(watcher.next_revision, watcher.wants_key), strict=False)
        reached = store.revision
        for step, (main, events) in steps:
            found += events
            if step == WATCH_BATCH_REVISIONS - 1:
                reached = main
        selected = watcher.select(found) if found else ()
        watcher.next_revision = reached + 1
        if selected:
            watcher.sink.deliver(watcher, Encoded(selected, watcher.prev_kv))
        self.add(watcher)

    def _match(self, events: Sequence[Event]) -> list[tuple[_Group, list[Event]]]:
        hits: dict[_Group, list[Event]] = {}
        for event in events:
            key = event.kv.key
            if key in self._keys:
                hits.setdefault(self._keys[key], []).append(event)
            for group in self._ranges.values():
                if group.start <= key and (group.end is None or key < group.end):
                    hits.setdefault(group, []).append(event)
        return list(hits.items())

    def _push(self, watcher: Watcher, hits: list[Event], shared: dict[bool, Encoded]) -> None:
        if watcher.sink.full():
            watcher.next_revision = max(watcher.next_revision, hits[0].kv.mod_revision)
            self.remove(watcher)
            watcher.sink.lag(watcher)
            return
        selected = watcher.select(hits)
        if not selected:
            return
        if selected is not hits:
            watcher.sink.deliver(watcher, Encoded(selected, watcher.prev_kv))
            return
        if watcher.prev_kv not in shared:
            shared[watcher.prev_kv] = Encoded(hits, watcher.prev_kv)
        watcher.sink.deliver(watcher, shared[watcher.prev_kv])

    def _join(self, watcher: Watcher) -> None:
        groups, name = self._place(watcher)
        if name not in groups:
            groups[name] = _Group(watcher.key, watcher.end)
        groups[name].watchers.add(watcher)

    def _place(self, watcher: Watcher) -> tuple[dict, object]:
        if watcher.end == watcher.key + b"\0":
            return self._keys, watcher.key
        return self._ranges, (watcher.key, watcher.end)
