"""One etcd watch on everything under /registry/, feeding the watch caches of all kinds.

Because one stream carries every kind, the feed's revision is one number: when it has reached R, every cache shows all
writes up to R. A consistent list is then: ask the store for its revision, wait for the feed to be there, answer from
memory.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from contextlib import aclosing

from control.api.codec import DecodeError
from control.api.errors import ApiError, Unavailable
from control.api.kinds import KINDS, Kind
from control.apiserver.cache import Cache
from control.apiserver.storage import PAGE, ROOT, Stored, decode, kind_of
from protos.etcd import kv_pb2
from raftstore.client import Client, prefix_end
from raftstore.client import errors as etcd_errors

log = logging.getLogger(__name__)

RETRY_S = 0.2


class Feed:
    """The caches of all kinds, kept young by ``run``.

    ``revision``: every write up to it is in the caches. ``ready`` is set after the first list.
    """

    def __init__(self, etcd: Client) -> None:
        self._etcd = etcd
        self._caches = {kind: Cache() for kind in KINDS}
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self.revision = 0
        self.ready = asyncio.Event()

    def cache(self, kind: Kind) -> Cache:
        """The cache of a kind."""
        return self._caches[kind]

    def close(self) -> None:
        """End every watch: the server is stopping."""
        for cache in self._caches.values():
            cache.close(_stopping)

    async def reach(self, revision: int, timeout_s: float) -> bool:
        """Wait until the feed has reached ``revision``; False when ``timeout_s`` passed first."""
        if self.revision >= revision:
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (revision, waiter)
        self._waiters.append(entry)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
            return True
        except TimeoutError:
            return False
        finally:
            if entry in self._waiters:
                self._waiters.remove(entry)

    async def run(self) -> None:
        """List everything, then follow; list again when history was compacted away. Until cancelled."""
        while True:
            try:
                await self._list()
                await self._follow()
            except etcd_errors.Compacted:
                log.warning("the watch fell behind the store's compaction; listing again")
            except etcd_errors.EtcdError as err:
                log.warning("the store does not answer; trying again", extra={"cause": str(err)})
                await asyncio.sleep(RETRY_S)

    async def _list(self) -> None:
        found: dict[Kind, list[Stored]] = defaultdict(list)
        start, revision, more = ROOT, 0, True
        while more:
            page = await self._etcd.range(start, prefix_end(ROOT), revision=revision, limit=PAGE)
            revision, more = revision or page.header.revision, page.more
            for kv in page.kvs:
                self._sort_in(found, kv)
            start = page.kvs[-1].key + b"\0" if page.kvs else start
        for kind, cache in self._caches.items():
            cache.reset(found[kind], revision)
        self._advance(revision)
        self.ready.set()

    def _sort_in(self, found: dict[Kind, list[Stored]], kv: kv_pb2.KeyValue) -> None:
        kind = kind_of(kv.key.decode(errors="replace"))
        item = _decoded(kind, kv) if kind else None
        if kind and item:
            found[kind].append(item)

    async def _follow(self) -> None:
        responses = self._etcd.watch(ROOT, prefix_end(ROOT), start_revision=self.revision + 1, prev_kv=False)
        async with aclosing(responses) as stream:
            async for response in stream:
                if response.events:
                    self._apply(response.events)
                elif not response.created:
                    self._advance(response.header.revision)

    def _apply(self, events: Sequence[kv_pb2.Event]) -> None:
        touched = set()
        for event in events:
            kind = kind_of(event.kv.key.decode(errors="replace"))
            if kind is not None:
                self._feed(kind, event)
                touched.add(kind)
        self._advance(events[-1].kv.mod_revision, touched)

    def _feed(self, kind: Kind, event: kv_pb2.Event) -> None:
        cache = self._caches[kind]
        if event.type == kv_pb2.Event.DELETE:
            cache.remove(event.kv.key.decode(), event.kv.mod_revision)
        elif item := _decoded(kind, event.kv):
            cache.put(item)

    def _advance(self, revision: int, touched: set[Kind] | None = None) -> None:
        self.revision = max(self.revision, revision)
        for kind, cache in self._caches.items():
            if touched is None or kind in touched:
                cache.advance(self.revision)
            else:
                cache.revision = self.revision
        self._release()

    def _release(self) -> None:
        waiting = []
        for revision, waiter in self._waiters:
            if revision > self.revision:
                waiting.append((revision, waiter))
            elif not waiter.done():
                waiter.set_result(None)
        self._waiters = waiting


def _decoded(kind: Kind, kv: kv_pb2.KeyValue) -> Stored | None:
    """The object of a pair; None, with a line in the log, when it is not one: the rest must still be served."""
    try:
        return decode(kind, kv.key, kv.value, kv.mod_revision)
    except DecodeError as err:
        log.error("not an object of its kind", extra={"key": kv.key.decode(errors="replace"), "cause": str(err)})
        return None


def _stopping() -> ApiError:
    return Unavailable("the apiserver is stopping; connect again")
