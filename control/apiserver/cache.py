"""The watch cache of one kind: its objects in key order, and the last changes in a ring that every watcher reads.

A watcher is a cursor into the ring; nothing is queued per watcher. One that falls behind by more than the ring's size
finds its place overwritten and is told Expired: it lists again, as after any gap. Pure bookkeeping but for the wake-up.
"""

import asyncio
import bisect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage

from control.api.errors import Expired
from control.api.meta import copy_of
from control.apiserver.storage import Stored

RING = 2048
"""How many changes of a kind are kept for watchers to catch up."""


@dataclass
class Change:
    """One change of one object. ``now`` and ``before`` are the object after and before it; None when there is none.

    ``last`` is the former object with this change's resourceVersion: what a DELETED event shows.
    """

    key: str
    revision: int
    now: Any | None
    before: Any | None
    _packed: dict[str, AnyMessage] = field(default_factory=dict)

    def packed(self, deleted: bool) -> AnyMessage:
        """The object for the wire, serialised once for all watchers."""
        name = "last" if deleted else "now"
        if name not in self._packed:
            self._packed[name] = pack(self.last() if deleted else self.now)
        return self._packed[name]

    def last(self) -> Any:
        """The former object at this revision."""
        obj = copy_of(self.before)
        obj.metadata.resourceVersion = str(self.revision)
        return obj


def pack(obj: Any) -> AnyMessage:
    """An object as google.protobuf.Any."""
    return AnyMessage(type_url=f"type.googleapis.com/{obj.DESCRIPTOR.full_name}", value=obj.SerializeToString())


class Cache:
    """The state of one kind at ``revision`` and the changes since ``floor``.

    Invariant: every change with ``floor`` < its revision <= ``revision`` is in the ring, in order.
    Objects are shared with all readers and never changed.
    """

    def __init__(self, size: int = RING) -> None:
        self._size = size
        self._objects: dict[str, Stored] = {}
        self._keys: list[str] = []
        self._ring: list[Change | None] = [None] * size
        # Sequence numbers of the oldest change kept and of the next to come.
        self._first = self._next = 0
        self._wake = asyncio.Event()
        self.floor = self.revision = 0
        self.closed: Callable[[], Exception] | None = None

    # -- feeding -------------------------------------------------------------------------------------------------

    def reset(self, items: Iterable[Stored], revision: int) -> None:
        """Start over from a list at ``revision``; every running watch is told Expired."""
        self._objects = {item.key: item for item in items}
        self._keys = sorted(self._objects)
        self._next += 1
        self._first = self._next
        self.floor = self.revision = revision
        self._notify()

    def put(self, item: Stored) -> None:
        """An object was created or changed."""
        before = self._objects.get(item.key)
        if before is None:
            bisect.insort(self._keys, item.key)
        self._objects[item.key] = item
        self._append(Change(item.key, item.revision, item.obj, before.obj if before else None))

    def remove(self, key: str, revision: int) -> None:
        """An object was deleted at ``revision``."""
        before = self._objects.pop(key, None)
        if before is not None:
            del self._keys[bisect.bisect_left(self._keys, key)]
            self._append(Change(key, revision, None, before.obj))

    def advance(self, revision: int) -> None:
        """Everything up to ``revision`` has been fed; wakes the watchers when something came."""
        self.revision = max(self.revision, revision)
        self._notify()

    def close(self, why: Callable[[], Exception]) -> None:
        """End every watch with ``why()``."""
        self.closed = why
        self._notify()

    def _append(self, change: Change) -> None:
        slot = self._next % self._size
        if self._next - self._first == self._size:
            evicted = self._ring[slot]
            self.floor = evicted.revision if evicted else self.floor
            self._first += 1
        self._ring[slot] = change
        self._next += 1

    def _notify(self) -> None:
        woken, self._wake = self._wake, asyncio.Event()
        woken.set()

    # -- reading -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, key: str) -> Any | None:
        """The object at ``key``, or None."""
        found = self._objects.get(key)
        return found.obj if found else None

    def items(self, prefix: str) -> Iterator[Stored]:
        """The objects whose key starts with ``prefix``, in key order. Do not await while iterating."""
        for at in range(bisect.bisect_left(self._keys, prefix), len(self._keys)):
            key = self._keys[at]
            if not key.startswith(prefix):
                return
            yield self._objects[key]

    async def changed(self) -> None:
        """Wait for the next change."""
        at = self._next
        while self._next == at:
            await self._wake.wait()

    def cursor(self, since: int) -> "Cursor":
        """A reader of the changes after revision ``since``. Raises Expired when some of them are gone."""
        if since < self.floor:
            raise expired(since, self.floor)
        at = self._first
        while at < self._next and self._at(at).revision <= since:
            at += 1
        return Cursor(self, at, since)

    def _at(self, sequence: int) -> Change:
        change = self._ring[sequence % self._size]
        if change is None:
            raise LookupError(sequence)
        return change


class Cursor:
    """A watcher's place in the ring."""

    def __init__(self, cache: Cache, at: int, since: int) -> None:
        self._cache, self._at, self._since = cache, at, since

    def take(self) -> list[Change]:
        """The changes since the last call, in order. Raises Expired after falling behind, or the cache's end."""
        cache = self._cache
        if cache.closed is not None:
            raise cache.closed()
        if self._at < cache._first:
            raise expired(self._since, cache.floor)
        changes = [cache._at(at) for at in range(self._at, cache._next)]
        self._at = cache._next
        # A watch may start from a revision that the cache has yet to reach.
        fresh = [change for change in changes if change.revision > self._since]
        self._since = max(self._since, cache.revision)
        return fresh

    @property
    def behind(self) -> bool:
        """True when ``take`` has something to give, or to raise."""
        return self._at != self._cache._next or self._cache.closed is not None

    async def wait(self, timeout_s: float) -> None:
        """Wait until there is something to take, or ``timeout_s`` passed."""
        if self.behind:
            return
        try:
            async with asyncio.timeout(max(timeout_s, 0)):
                await self._cache._wake.wait()
        except TimeoutError:
            return


def expired(since: int, floor: int) -> Expired:
    """The error of a watch from before the ring's begin."""
    return Expired(f"too old resource version: {since} ({floor}); list again and watch from the list's version")
