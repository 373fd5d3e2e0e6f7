"""etcdserverpb.KV: keys and values."""

from collections.abc import AsyncIterator

import grpc

from protos.etcd import rpc_pb2 as pb
from protos.etcd import rpc_pb2_grpc as rpc
from protos.serving import unimplemented
from raftstore import validate
from raftstore.command import Kind
from raftstore.errors import EtcdError, Unimplemented
from raftstore.member import Member
from raftstore.mvcc.range import in_key_order, read_range
from raftstore.mvcc.txn import execute_txn
from raftstore.server.calls import unary
from raftstore.server.errors import refuse
from raftstore.server.identity import identify
from raftstore.server.stream import range_stream


@unimplemented
class KV(rpc.KVServicer):
    """Reads come from this member's store, writes go through the log."""

    def __init__(self, member: Member) -> None:
        self._member = member

    @unary
    async def Range(self, request: pb.RangeRequest, context: grpc.aio.ServicerContext) -> pb.RangeResponse:
        """Read keys, linearizable unless ``serializable``."""
        validate.check_range(request)
        if not request.serializable:
            await self._member.linearize()
        self._member.machine.guard.check_range(identify(self._member, context), request)
        response = read_range(self._member.store, request)
        response.header.CopyFrom(self._member.header())
        return response

    async def RangeStream(
        self, request: pb.RangeRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.RangeStreamResponse]:
        """Read keys in chunks that all show one revision."""
        try:
            validate.check_range(request)
            if not in_key_order(request):
                raise Unimplemented("etcdserver: RangeStream does not support sorting or revision filters")
            if not request.serializable:
                await self._member.linearize()
            self._member.machine.guard.check_range(identify(self._member, context), request)
            async for chunk in range_stream(self._member, request):
                yield chunk
        except EtcdError as err:
            await refuse(context, err)

    @unary
    async def Put(self, request: pb.PutRequest, context: grpc.aio.ServicerContext) -> pb.PutResponse:
        """Write one key."""
        validate.check_put(request)
        return await self._member.propose(Kind.PUT, request, identify(self._member, context))

    @unary
    async def DeleteRange(
        self, request: pb.DeleteRangeRequest, context: grpc.aio.ServicerContext
    ) -> pb.DeleteRangeResponse:
        """Delete keys."""
        validate.check_delete(request)
        return await self._member.propose(Kind.DELETE_RANGE, request, identify(self._member, context))

    @unary
    async def Txn(self, request: pb.TxnRequest, context: grpc.aio.ServicerContext) -> pb.TxnResponse:
        """Compare and act, atomically. A transaction of reads only needs no log entry."""
        validate.check_txn(request, self._member.config.max_txn_ops)
        if not validate.is_read_only(request):
            return await self._member.propose(Kind.TXN, request, identify(self._member, context))
        if not validate.is_serializable(request):
            await self._member.linearize()
        who, machine = identify(self._member, context), self._member.machine
        if machine.auth.enabled:
            machine.guard.check_txn(who, request)
        store = self._member.store
        response = execute_txn(store, self._member.lessor, store.write(), request)
        response.header.CopyFrom(self._member.header())
        return response

    @unary
    async def Compact(self, request: pb.CompactionRequest, context: grpc.aio.ServicerContext) -> pb.CompactionResponse:
        """Forget old history. ``physical`` waits until it is out of the database."""
        response = await self._member.propose(Kind.COMPACT, request, identify(self._member, context))
        if request.physical:
            await self._member.checkpoint()
        return response
