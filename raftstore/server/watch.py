"""etcdserverpb.Watch: one stream, many watchers.

Answers go through one outbox per stream, so order on the wire is the order in which things happened: nothing of a
watcher before its ``created``, a progress revision behind all events up to it. Responses are put together from encoded
pieces: a thousand watchers of one range share the encoding of an event.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator

import grpc

from protos.etcd import rpc_pb2 as pb
from raftstore.auth.identity import ANONYMOUS, Identity
from raftstore.errors import EtcdError, InvariantBroken, NoLeader
from raftstore.limits import RECEIVE_OVERHEAD_BYTES, WATCH_OUTBOX_BYTES_MAX
from raftstore.member import Member
from raftstore.server.calls import asks_for_leader
from raftstore.server.errors import refuse, to_wire
from raftstore.server.identity import identify
from raftstore.server.leader import while_led
from raftstore.watch import Encoded, Watcher, is_empty_range

log = logging.getLogger(__name__)

_COMPACTED = "etcdserver: mvcc: required revision has been compacted"
_EMPTY_RANGE = "mvcc: watcher range is empty"
_DUPLICATE_ID = "mvcc: duplicate watch ID provided on the WatchStream"
_REFUSED_ID = -1
_PROGRESS_ID = -1
_FRAGMENT = pb.WatchResponse(fragment=True).SerializeToString()


def add_watch(member: Member, server: grpc.aio.Server) -> None:
    """Add the service to ``server``. Responses leave the handler as bytes."""

    async def serve(requests: AsyncIterator[pb.WatchRequest], context: grpc.aio.ServicerContext) -> None:
        try:
            if not asks_for_leader(context):
                await WatchStream(member, lambda: identify(member, context)).serve(requests, context)
                return
            if not member.node.leader:
                raise NoLeader("this member knows no leader")
            async with while_led(member):
                await WatchStream(member, lambda: identify(member, context)).serve(requests, context)
        except EtcdError as err:
            await refuse(context, err)
        except BaseExceptionGroup as group:
            if group.subgroup(InvariantBroken):
                member.fail(group)  # gRPC would answer UNKNOWN and carry on
            raise

    handler = grpc.stream_stream_rpc_method_handler(serve, request_deserializer=pb.WatchRequest.FromString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("etcdserverpb.Watch", {"Watch": handler}),))


class WatchStream:
    """The server's end of one Watch call; the Sink of its watchers."""

    def __init__(self, member: Member, identity: Callable[[], Identity] = lambda: ANONYMOUS) -> None:
        """``identity`` tells who the client is; it raises Unauthenticated for a token it does not know."""
        self._member = member
        self._identity = identity
        self._hub = member.watches
        self._watchers: dict[int, Watcher] = {}
        self._lagging: list[Watcher] = []
        self._quiet: set[int] = set()
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._progress_asked = False
        self._half_closed = False
        self._wake = asyncio.Event()
        self._next_id = 0

    async def serve(self, requests: AsyncIterator[pb.WatchRequest], context: grpc.aio.ServicerContext) -> None:
        """Run until the client closes its side, then send what is due, or until it goes away."""
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read(requests), name="watch-reader")
                ticking = tasks.create_task(self._notify_progress(), name="watch-progress")
                await self._write(context)
                reading.cancel()
                ticking.cancel()
        finally:
            for watcher in self._watchers.values():
                self._hub.remove(watcher)

    # -- requests ------------------------------------------------------------------------------------------------

    async def _read(self, requests: AsyncIterator[pb.WatchRequest]) -> None:
        async for request in requests:
            if request.HasField("create_request"):
                self._create(request.create_request)
            elif request.HasField("cancel_request"):
                self._cancel(request.cancel_request.watch_id)
            elif request.HasField("progress_request"):
                self._progress_asked = True
                self._wake.set()
        self._half_closed = True
        self._wake.set()

    def _create(self, request: pb.WatchCreateRequest) -> None:
        refusal = self._refusal(request)
        if refusal:
            self._respond(pb.WatchResponse(watch_id=_REFUSED_ID, created=True, canceled=True, cancel_reason=refusal))
            return
        id = request.watch_id or self._free_id()
        start = request.start_revision or self._member.store.revision + 1
        watcher = self._watchers[id] = Watcher(id, request, start, self)
        self._respond(pb.WatchResponse(watch_id=id, created=True))
        self._hub.add(watcher)

    def _refusal(self, request: pb.WatchCreateRequest) -> str:
        if is_empty_range(request):
            return _EMPTY_RANGE
        if request.start_revision < 0:
            return _COMPACTED
        if self._member.machine.auth.enabled and (denial := self._denial(request)):
            return denial
        return _DUPLICATE_ID if request.watch_id in self._watchers and request.watch_id != 0 else ""

    def _denial(self, request: pb.WatchCreateRequest) -> str:
        try:
            self._member.machine.auth.check_read(self._identity(), request.key or b"\0", request.range_end)
        except EtcdError as err:
            code, text = to_wire(err)
            name = "".join(word.capitalize() for word in code.name.split("_"))
            return f"rpc error: code = {name} desc = {text}"
        return ""

    def _free_id(self) -> int:
        while self._next_id in self._watchers:
            self._next_id += 1
        self._next_id += 1
        return self._next_id - 1

    def _cancel(self, id: int) -> None:
        watcher = self._watchers.pop(id, None)
        if watcher is not None:
            self._hub.remove(watcher)
            self._respond(pb.WatchResponse(watch_id=id, canceled=True))

    # -- Sink ----------------------------------------------------------------------------------------------------

    def full(self) -> bool:
        """See Sink."""
        return self._outbox_bytes >= WATCH_OUTBOX_BYTES_MAX

    def deliver(self, watcher: Watcher, events: Encoded) -> None:
        """See Sink."""
        self._quiet.discard(watcher.id)
        head = pb.WatchResponse(header=self._member.header(), watch_id=watcher.id).SerializeToString()
        if not watcher.fragment:
            self._queue(head + events.joined)
            return
        pieces = list(_fragments(events.pieces, self._member.config.max_request_bytes + RECEIVE_OVERHEAD_BYTES))
        for piece in pieces[:-1]:
            self._queue(head + _FRAGMENT + piece)
        self._queue(head + pieces[-1])

    def lag(self, watcher: Watcher) -> None:
        """See Sink."""
        self._lagging.append(watcher)
        self._wake.set()

    def compacted(self, watcher: Watcher, compact_revision: int) -> None:
        """See Sink. The header has revision 0, as etcd's."""
        self._watchers.pop(watcher.id, None)
        response = pb.WatchResponse(
            header=self._member.header(0), watch_id=watcher.id, canceled=True, compact_revision=compact_revision
        )
        self._queue(response.SerializeToString())

    # -- responses -----------------------------------------------------------------------------------------------

    def _respond(self, response: pb.WatchResponse) -> None:
        response.header.CopyFrom(self._member.header())
        self._queue(response.SerializeToString())

    def _queue(self, data: bytes) -> None:
        self._outbox.append(data)
        self._outbox_bytes += len(data)
        self._wake.set()

    async def _write(self, context: grpc.aio.ServicerContext) -> None:
        while not self._half_closed:
            await self._wake.wait()
            self._wake.clear()
            await self._drain(context)
            while self._lagging:
                watcher = self._lagging.pop(0)
                if self._watchers.get(watcher.id) is watcher:
                    self._hub.catch_up(watcher)
                await self._drain(context)
                await asyncio.sleep(0)  # others' turn
            if self._progress_asked:
                self._answer_progress()
                await self._drain(context)

    async def _drain(self, context: grpc.aio.ServicerContext) -> None:
        while self._outbox:
            data = self._outbox.popleft()
            await context.write(data)
            self._outbox_bytes -= len(data)

    # -- progress ------------------------------------------------------------------------------------------------

    def _answer_progress(self) -> None:
        """All watchers are current, so all events up to now are sent or queued before this answer."""
        self._progress_asked = False
        started = all(watcher.next_revision <= self._revision + 1 for watcher in self._watchers.values())
        if self._watchers and started:
            self._respond(pb.WatchResponse(watch_id=_PROGRESS_ID))

    async def _notify_progress(self) -> None:
        """Tell watchers that asked for it, and had no event for an interval, how far they are."""
        while True:
            self._quiet = {watcher.id for watcher in self._watchers.values() if watcher.progress_notify}
            await asyncio.sleep(self._member.config.watch_progress_notify_interval_s)
            for id in sorted(self._quiet):
                watcher = self._watchers.get(id)
                if watcher and watcher not in self._lagging and watcher.next_revision <= self._revision + 1:
                    self._respond(pb.WatchResponse(watch_id=id))

    @property
    def _revision(self) -> int:
        return self._member.store.revision


def _fragments(pieces: list[bytes], bytes_max: int) -> Iterator[bytes]:
    """Encoded events joined into parts of at most ``bytes_max``, or of one event where that is larger."""
    part: list[bytes] = []
    size = 0
    for piece in pieces:
        if part and size + len(piece) > bytes_max:
            yield b"".join(part)
            part, size = [], 0
        part.append(piece)
        size += len(piece)
    yield b"".join(part)
