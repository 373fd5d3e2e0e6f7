"""Waiting in line on ordinary keys, which locks and elections share.

A waiter puts ``<name>/<lease id in hex>`` under its lease; the oldest key, by create revision, has its turn. Everything
is done on behalf of the caller, so its permissions apply.
"""

import asyncio
from typing import Any

import grpc

from protos.etcd import rpc_pb2 as pb
from protos.etcd.kv_pb2 import KeyValue
from raftstore.command import Kind
from raftstore.errors import SessionExpired
from raftstore.member import Member
from raftstore.mvcc.range import read_range
from raftstore.server.identity import identify
from raftstore.server.lease import free_lease_id
from raftstore.watch import Encoded, Watcher

LEASE_TTL_S = 60
"""Of a lease that the server grants because the caller named none; nobody renews it."""


class Queue:
    """The line of one name, for one call."""

    def __init__(self, member: Member, context: grpc.aio.ServicerContext, name: bytes) -> None:
        self._member = member
        self._context = context
        self.prefix = name + b"/"

    async def propose(self, kind: Kind, request: Any) -> Any:
        """Write on behalf of the caller."""
        return await self._member.propose(kind, request, identify(self._member, self._context))

    async def enter(self, lease: int, value: bytes = b"") -> tuple[bytes, KeyValue | None, pb.TxnResponse]:
        """Put the waiter's key unless it is there already; returns it, the pair that was there, the response."""
        key = b"%s%x" % (self.prefix, lease)
        missing = pb.Compare(key=key, target=pb.Compare.CREATE, result=pb.Compare.EQUAL, create_revision=0)
        put = pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, lease=lease))
        get = pb.RequestOp(request_range=pb.RangeRequest(key=key))
        response = await self.propose(Kind.TXN, pb.TxnRequest(compare=[missing], success=[put], failure=[get]))
        found = None if response.succeeded else response.responses[0].response_range.kvs[0]
        return key, found, response

    async def lease(self, id: int) -> int:
        """The caller's lease, or a new one if it is 0."""
        if id:
            return id
        grant = pb.LeaseGrantRequest(ID=free_lease_id(self._member), TTL=LEASE_TTL_S)
        return (await self.propose(Kind.LEASE_GRANT, grant)).ID

    async def wait_for_turn(self, key: bytes, create_revision: int) -> None:
        """Return when no older key is in line. Raises SessionExpired if the own key goes meanwhile."""
        while ahead := self._last_before(create_revision):
            await self.changed(ahead.key)
        mine = self._member.store.get(key)
        if mine is None or mine.create_revision != create_revision:
            raise SessionExpired("mutex: session is expired")

    def first(self) -> KeyValue | None:
        """The oldest key in line, as the caller may see it."""
        oldest = self._range(sort_order=pb.RangeRequest.ASCEND)
        return oldest[0] if oldest else None

    def _last_before(self, create_revision: int) -> KeyValue | None:
        found = self._range(sort_order=pb.RangeRequest.DESCEND, max_create_revision=create_revision - 1)
        return found[0] if found else None

    def _range(self, **options: Any) -> list[KeyValue]:
        request = pb.RangeRequest(
            key=self.prefix, range_end=self.end, limit=1, sort_target=pb.RangeRequest.CREATE, **options
        )
        self._member.machine.guard.check_range(identify(self._member, self._context), request)
        return list(read_range(self._member.store, request).kvs)

    @property
    def end(self) -> bytes:
        """The end of the line's range."""
        return self.prefix[:-1] + b"0"  # the prefix ends in a slash, whose successor is the digit 0

    async def changed(self, key: bytes, range_end: bytes = b"") -> None:
        """Return at the next change in the range after now."""
        alarm = _Alarm()
        watch = pb.WatchCreateRequest(key=key, range_end=range_end)
        watcher = Watcher(0, watch, self._member.store.revision + 1, alarm)
        self._member.watches.add(watcher)
        try:
            await alarm.rang.wait()
        finally:
            self._member.watches.remove(watcher)


class _Alarm:
    """A Sink that only notices."""

    def __init__(self) -> None:
        self.rang = asyncio.Event()

    def full(self) -> bool:
        """See Sink."""
        return False

    def deliver(self, watcher: Watcher, events: Encoded) -> None:
        """See Sink."""
        self.rang.set()

    def lag(self, watcher: Watcher) -> None:
        """See Sink."""
        self.rang.set()

    def compacted(self, watcher: Watcher, compact_revision: int) -> None:
        """See Sink."""
        self.rang.set()


async def leave(queue: Queue, key: bytes, create_revision: int) -> pb.TxnResponse:
    """Delete the waiter's key, unless it is another's by now."""
    same = pb.Compare(key=key, target=pb.Compare.CREATE, result=pb.Compare.EQUAL, create_revision=create_revision)
    delete = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))
    return await queue.propose(Kind.TXN, pb.TxnRequest(compare=[same], success=[delete]))
