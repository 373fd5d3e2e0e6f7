"""v3lockpb.Lock: mutual exclusion on ordinary keys. The server only waits in the caller's place."""

import asyncio

import grpc

from protos.etcd import lock_pb2 as pb
from protos.etcd import lock_pb2_grpc as rpc
from protos.etcd import rpc_pb2
from raftstore.command import Kind
from raftstore.member import Member
from raftstore.server.calls import unary
from raftstore.server.identity import identify
from raftstore.server.queue import Queue, leave


class Lock(rpc.LockServicer):
    """See the module."""

    def __init__(self, member: Member) -> None:
        self._member = member

    @unary
    async def Lock(self, request: pb.LockRequest, context: grpc.aio.ServicerContext) -> pb.LockResponse:
        """Wait until the caller holds the lock; a wait that is broken off leaves no key."""
        queue = Queue(self._member, context, request.name)
        key, found, response = await queue.enter(await queue.lease(request.lease))
        created = found.create_revision if found else response.header.revision
        try:
            await queue.wait_for_turn(key, created)
        except BaseException:
            await asyncio.shield(leave(queue, key, created))
            raise
        return pb.LockResponse(header=response.header, key=key)

    @unary
    async def Unlock(self, request: pb.UnlockRequest, context: grpc.aio.ServicerContext) -> pb.UnlockResponse:
        """Delete the lock's key; a missing one is success."""
        delete = rpc_pb2.DeleteRangeRequest(key=request.key)
        done = await self._member.propose(Kind.DELETE_RANGE, delete, identify(self._member, context))
        return pb.UnlockResponse(header=done.header)
