"""An asyncio client of the etcd v3 API. It works on any etcd; ``control`` keeps its state through it.

::

    async with Client(["https://127.0.0.1:2379"], tls) as c:
        await c.put(b"/a", b"1")
        async for response in c.watch(b"/", prefix_end(b"/"), start_revision=2): ...

Reads are repeated on another endpoint while the store is unavailable; a write is repeated only when it surely was not
sent. What the store refuses is raised as one of ``raftstore.errors``.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

import grpc

from protos.etcd import rpc_pb2 as pb
from protos.etcd import rpc_pb2_grpc as rpc
from protos.serving import TLS, open_channel
from raftstore import errors
from raftstore.server.errors import from_wire

__all__ = ["Client", "compare_mod", "compare_version", "errors", "op_delete", "op_put", "op_range", "prefix_end"]

TIMEOUT_S = 10.0
"""How long a unary call may take, all its repetitions included, seconds."""

RETRY_DELAY_S = 0.1
"""Pause before an unavailable store is asked again, seconds."""

HAS_LEADER = (("hasleader", "true"),)
"""Metadata: fail at once, rather than hang, on a member that lost its leader."""

_NEVER_SENT = ("failed to connect to all addresses", "etcdserver: no leader")
_WATCH_RETRIED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}


def prefix_end(prefix: bytes) -> bytes:
    """The ``range_end`` of all keys that start with ``prefix``; ``b"\\0"`` (no end) when it is empty or all 0xff."""
    head = prefix.rstrip(b"\xff")
    return head[:-1] + bytes([head[-1] + 1]) if head else b"\0"


_RESULTS = {"=": pb.Compare.EQUAL, "!=": pb.Compare.NOT_EQUAL, ">": pb.Compare.GREATER, "<": pb.Compare.LESS}


def compare_mod(key: bytes, result: str, revision: int) -> pb.Compare:
    """Holds when the key's mod_revision ``result`` (one of = != > <) ``revision``; a missing key counts as 0."""
    return pb.Compare(key=key, target=pb.Compare.MOD, result=_RESULTS[result], mod_revision=revision)


def compare_version(key: bytes, result: str, version: int) -> pb.Compare:
    """Holds when the key's version ``result`` ``version``; a missing key counts as 0."""
    return pb.Compare(key=key, target=pb.Compare.VERSION, result=_RESULTS[result], version=version)


def op_put(key: bytes, value: bytes, lease: int = 0, prev_kv: bool = False) -> pb.RequestOp:
    """A put inside a transaction."""
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, lease=lease, prev_kv=prev_kv))


def op_range(key: bytes, range_end: bytes = b"", **options: Any) -> pb.RequestOp:
    """A read inside a transaction; ``options`` are fields of RangeRequest."""
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, range_end=range_end, **options))


def op_delete(key: bytes, range_end: bytes = b"", prev_kv: bool = False) -> pb.RequestOp:
    """A deletion inside a transaction."""
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, range_end=range_end, prev_kv=prev_kv))


class _Endpoint:
    """One member: its channel and stubs."""

    def __init__(self, address: str, tls: TLS | None) -> None:
        self.address = address
        self.channel = open_channel(address, tls)
        self.kv = rpc.KVStub(self.channel)
        self.watch = rpc.WatchStub(self.channel)
        self.lease = rpc.LeaseStub(self.channel)
        self.maintenance = rpc.MaintenanceStub(self.channel)
        self.cluster = rpc.ClusterStub(self.channel)


class Client:
    """A connection to an etcd cluster through any of its ``endpoints``.

    Args:
        endpoints: ``http(s)://host:port``, ``host:port`` or ``unix:`` addresses, tried in turn.
        tls: mutual TLS, or None for plaintext.
        timeout_s: limit of each unary call with its repetitions.
    """

    def __init__(self, endpoints: Sequence[str], tls: TLS | None = None, timeout_s: float = TIMEOUT_S) -> None:
        if not endpoints:
            raise ValueError("an etcd client needs at least one endpoint")
        self._timeout_s = timeout_s
        self._endpoints = [_Endpoint(address, tls) for address in endpoints]
        self._current = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; running calls and watches end."""
        for endpoint in self._endpoints:
            await endpoint.channel.close()

    # -- KV ------------------------------------------------------------------------------------------------------

    async def range(
        self,
        key: bytes,
        range_end: bytes = b"",
        revision: int = 0,
        limit: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
        serializable: bool = False,
        **options: Any,
    ) -> pb.RangeResponse:
        """Read ``[key, range_end)`` at ``revision`` (0: now). ``options`` are the other fields of RangeRequest.

        Raises Compacted or FutureRevision for a revision the store does not have.
        """
        request = pb.RangeRequest(
            key=key,
            range_end=range_end,
            revision=revision,
            limit=limit,
            keys_only=keys_only,
            count_only=count_only,
            serializable=serializable,
            **options,
        )
        return await self._read(lambda e: e.kv.Range, request)

    async def put(self, key: bytes, value: bytes, lease: int = 0, prev_kv: bool = False) -> pb.PutResponse:
        """Write one key. Raises LeaseNotFound, NoSpace, TooLarge; Unavailable means it may have happened."""
        return await self._write(lambda e: e.kv.Put, pb.PutRequest(key=key, value=value, lease=lease, prev_kv=prev_kv))

    async def delete_range(self, key: bytes, range_end: bytes = b"", prev_kv: bool = False) -> pb.DeleteRangeResponse:
        """Delete ``[key, range_end)``; deleting nothing is success."""
        return await self._write(
            lambda e: e.kv.DeleteRange, pb.DeleteRangeRequest(key=key, range_end=range_end, prev_kv=prev_kv)
        )

    async def txn(
        self,
        compare: Sequence[pb.Compare] = (),
        success: Sequence[pb.RequestOp] = (),
        failure: Sequence[pb.RequestOp] = (),
    ) -> pb.TxnResponse:
        """If all of ``compare`` hold run ``success``, else ``failure``; atomically. ``.succeeded`` tells which."""
        return await self._write(lambda e: e.kv.Txn, pb.TxnRequest(compare=compare, success=success, failure=failure))

    async def compact(self, revision: int, physical: bool = False) -> pb.CompactionResponse:
        """Forget history before ``revision``. Raises Compacted when that is done already."""
        request = pb.CompactionRequest(revision=revision, physical=physical)
        return await self._write(lambda e: e.kv.Compact, request)

    # -- Lease ---------------------------------------------------------------------------------------------------

    async def lease_grant(self, ttl: int, id: int = 0) -> pb.LeaseGrantResponse:
        """A lease of at least ``ttl`` seconds; ``id`` 0 lets the store choose."""
        return await self._write(lambda e: e.lease.LeaseGrant, pb.LeaseGrantRequest(TTL=ttl, ID=id))

    async def lease_revoke(self, id: int) -> pb.LeaseRevokeResponse:
        """End a lease and delete its keys. Raises LeaseNotFound."""
        return await self._write(lambda e: e.lease.LeaseRevoke, pb.LeaseRevokeRequest(ID=id))

    async def lease_keep_alive_once(self, id: int) -> pb.LeaseKeepAliveResponse:
        """Restart a lease's full TTL. Raises LeaseNotFound when it is gone."""
        response = await self._read(lambda e: _keep_alive_once(e), pb.LeaseKeepAliveRequest(ID=id))
        if response.TTL <= 0:
            raise errors.LeaseNotFound(f"lease {id:x} is gone")
        return response

    async def lease_time_to_live(self, id: int, keys: bool = False) -> pb.LeaseTimeToLiveResponse:
        """Remaining and granted TTL in seconds (TTL -1: no such lease), and its keys when asked."""
        return await self._read(lambda e: e.lease.LeaseTimeToLive, pb.LeaseTimeToLiveRequest(ID=id, keys=keys))

    async def lease_leases(self) -> pb.LeaseLeasesResponse:
        """All lease ids."""
        return await self._read(lambda e: e.lease.LeaseLeases, pb.LeaseLeasesRequest())

    # -- Maintenance and cluster ---------------------------------------------------------------------------------

    async def status(self) -> pb.StatusResponse:
        """Version, sizes, leader and raft state of the member in use."""
        return await self._read(lambda e: e.maintenance.Status, pb.StatusRequest())

    async def member_list(self) -> pb.MemberListResponse:
        """The cluster's members."""
        return await self._read(lambda e: e.cluster.MemberList, pb.MemberListRequest(linearizable=True))

    async def hash_kv(self, revision: int = 0) -> pb.HashKVResponse:
        """A checksum of the history up to ``revision`` (0: now) of the member in use."""
        return await self._read(lambda e: e.maintenance.HashKV, pb.HashKVRequest(revision=revision))

    async def alarms(self) -> pb.AlarmResponse:
        """All raised alarms."""
        return await self._read(lambda e: e.maintenance.Alarm, pb.AlarmRequest())

    async def raise_alarm(self, alarm: pb.AlarmMember) -> pb.AlarmResponse:
        """Raise an alarm on behalf of a member."""
        return await self._alarm(pb.AlarmRequest.ACTIVATE, alarm)

    async def disarm(self, alarm: pb.AlarmMember) -> pb.AlarmResponse:
        """Clear an alarm."""
        return await self._alarm(pb.AlarmRequest.DEACTIVATE, alarm)

    async def _alarm(self, action: pb.AlarmRequest.AlarmAction, alarm: pb.AlarmMember) -> pb.AlarmResponse:
        request = pb.AlarmRequest(action=action, memberID=alarm.memberID, alarm=alarm.alarm)
        return await self._write(lambda e: e.maintenance.Alarm, request)

    async def snapshot(self) -> AsyncGenerator[bytes, None]:
        """The member's database in pieces, the last one its SHA-256; joined they are a snapshot file."""
        try:
            async for response in self._endpoint.maintenance.Snapshot(pb.SnapshotRequest()):
                yield response.blob
        except grpc.aio.AioRpcError as err:
            raise from_wire(err.code(), err.details() or "") from err

    # -- Watch ---------------------------------------------------------------------------------------------------

    async def watch(
        self,
        key: bytes,
        range_end: bytes = b"",
        start_revision: int = 0,
        prev_kv: bool = True,
        progress_notify: bool = True,
        filters: Sequence[pb.WatchCreateRequest.FilterType] = (),
    ) -> AsyncGenerator[pb.WatchResponse, None]:
        """Follow ``[key, range_end)`` from ``start_revision`` (0: from now) until the caller stops iterating.

        Yields the ``created`` response first, then events and progress notifications (no events; all up to
        ``header.revision`` were delivered). A lost connection is mended without gap or repetition. Leave early with
        ``contextlib.aclosing``, so that the call ends at once.

        Raises Compacted (list again) when history is gone, WatchCanceled with the store's reason otherwise.
        """
        create = pb.WatchCreateRequest(
            key=key,
            range_end=range_end,
            start_revision=start_revision,
            prev_kv=prev_kv,
            progress_notify=progress_notify,
            filters=filters,
        )
        announced = False
        while True:
            try:
                async with aclosing(self._watch_once(create)) as responses:
                    async for response in responses:
                        _advance(create, response)
                        if not (response.created and announced):
                            yield response
                        announced = True
            except grpc.aio.AioRpcError as err:
                if err.code() not in _WATCH_RETRIED:
                    raise from_wire(err.code(), err.details() or "") from err
                self._rotate()
            await asyncio.sleep(RETRY_DELAY_S)

    async def _watch_once(self, create: pb.WatchCreateRequest) -> AsyncGenerator[pb.WatchResponse, None]:
        call = self._endpoint.watch.Watch(metadata=HAS_LEADER, wait_for_ready=len(self._endpoints) == 1)
        try:
            await call.write(pb.WatchRequest(create_request=create))
            while (response := await call.read()) is not grpc.aio.EOF:
                _raise_if_canceled(response)
                yield response
        finally:
            call.cancel()

    # -- calls ---------------------------------------------------------------------------------------------------

    @property
    def _endpoint(self) -> _Endpoint:
        return self._endpoints[self._current]

    def _rotate(self) -> None:
        self._current = (self._current + 1) % len(self._endpoints)

    async def _read(self, method: Callable[[_Endpoint], Callable[..., Awaitable[Any]]], request: Any) -> Any:
        return await self._call(method, request, lambda err: True)

    async def _write(self, method: Callable[[_Endpoint], Callable[..., Awaitable[Any]]], request: Any) -> Any:
        return await self._call(method, request, lambda err: (err.details() or "").startswith(_NEVER_SENT))

    async def _call(
        self,
        method: Callable[[_Endpoint], Callable[..., Awaitable[Any]]],
        request: Any,
        repeatable: Callable[[grpc.aio.AioRpcError], bool],
    ) -> Any:
        """Call until it is answered, refused, not ``repeatable`` or ``timeout_s`` is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        while True:
            remaining_s = deadline - loop.time()
            try:
                return await method(self._endpoint)(request, timeout=remaining_s)
            except grpc.aio.AioRpcError as err:
                self_healing = err.code() is grpc.StatusCode.UNAVAILABLE and repeatable(err)
                if not self_healing or remaining_s <= RETRY_DELAY_S:
                    raise from_wire(err.code(), err.details() or "") from err
            self._rotate()
            await asyncio.sleep(RETRY_DELAY_S)


def _keep_alive_once(endpoint: _Endpoint) -> Callable[..., Awaitable[pb.LeaseKeepAliveResponse]]:
    async def once(request: pb.LeaseKeepAliveRequest, timeout: float) -> pb.LeaseKeepAliveResponse:
        call = endpoint.lease.LeaseKeepAlive(timeout=timeout)
        try:
            await call.write(request)
            response = await call.read()
            if response is grpc.aio.EOF:
                raise errors.Unavailable("the keepalive stream ended without an answer")
            return response
        finally:
            call.cancel()

    return once


def _advance(create: pb.WatchCreateRequest, response: pb.WatchResponse) -> None:
    """Move ``create.start_revision`` past what ``response`` delivered, for the next connection."""
    if response.events:
        create.start_revision = response.events[-1].kv.mod_revision + 1
    elif response.created:
        create.start_revision = create.start_revision or response.header.revision + 1
    else:
        create.start_revision = max(create.start_revision, response.header.revision + 1)


def _raise_if_canceled(response: pb.WatchResponse) -> None:
    if not response.canceled:
        return
    if response.compact_revision:
        raise errors.Compacted(response.cancel_reason, response.compact_revision)
    if "required revision has been compacted" in response.cancel_reason:
        raise errors.Compacted(response.cancel_reason)
    raise errors.WatchCanceled(response.cancel_reason or "the store canceled the watch")
