"""v3electionpb.Election: one leader among those in line under a name."""

import asyncio
from collections.abc import AsyncIterator

import grpc

from protos.etcd import election_pb2 as pb
from protos.etcd import election_pb2_grpc as rpc
from protos.etcd import rpc_pb2
from protos.etcd.kv_pb2 import KeyValue
from raftstore.command import Kind
from raftstore.errors import EtcdError, MissingLeader, NoElection, NotElected
from raftstore.member import Member
from raftstore.server.calls import unary
from raftstore.server.errors import refuse
from raftstore.server.queue import Queue, leave


class Election(rpc.ElectionServicer):
    """See the module."""

    def __init__(self, member: Member) -> None:
        self._member = member

    @unary
    async def Campaign(self, request: pb.CampaignRequest, context: grpc.aio.ServicerContext) -> pb.CampaignResponse:
        """Wait until the caller leads. Campaigning again under one lease keeps the place and updates the value."""
        queue = Queue(self._member, context, request.name)
        lease = await queue.lease(request.lease)
        key, found, response = await queue.enter(lease, request.value)
        created = found.create_revision if found else response.header.revision
        leader = pb.LeaderKey(name=request.name, key=key, rev=created, lease=lease)
        try:
            if found is not None and found.value != request.value:
                await _proclaim(queue, leader, request.value)
            await queue.wait_for_turn(key, created)
        except BaseException:
            await asyncio.shield(leave(queue, key, created))
            raise
        return pb.CampaignResponse(header=response.header, leader=leader)

    @unary
    async def Proclaim(self, request: pb.ProclaimRequest, context: grpc.aio.ServicerContext) -> pb.ProclaimResponse:
        """Change the leader's value. Raises NotElected."""
        leader = _leader_of(request)
        queue = Queue(self._member, context, leader.name)
        return pb.ProclaimResponse(header=await _proclaim(queue, leader, request.value))

    @unary
    async def Leader(self, request: pb.LeaderRequest, context: grpc.aio.ServicerContext) -> pb.LeaderResponse:
        """The present leader's pair. Raises NoElection."""
        await self._member.linearize()
        leading = Queue(self._member, context, request.name).first()
        if leading is None:
            raise NoElection("election: no leader")
        return pb.LeaderResponse(header=self._member.header(), kv=leading)

    async def Observe(
        self, request: pb.LeaderRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.LeaderResponse]:
        """The leader's pair, now and whenever leader or value changes."""
        try:
            await self._member.linearize()
            queue = Queue(self._member, context, request.name)
            last: KeyValue | None = None
            while True:
                leading = queue.first()
                if leading is not None and leading != last:
                    last = leading
                    yield pb.LeaderResponse(header=self._member.header(), kv=leading)
                if leading == queue.first():  # nothing happened while the answer was sent
                    await queue.changed(queue.prefix, queue.end)
        except EtcdError as err:
            await refuse(context, err)

    @unary
    async def Resign(self, request: pb.ResignRequest, context: grpc.aio.ServicerContext) -> pb.ResignResponse:
        """Give leadership up; if another leads already, that is success."""
        leader = _leader_of(request)
        done = await leave(Queue(self._member, context, leader.name), leader.key, leader.rev)
        return pb.ResignResponse(header=done.header)


def _leader_of(request: pb.ProclaimRequest | pb.ResignRequest) -> pb.LeaderKey:
    if not request.HasField("leader"):
        raise MissingLeader('"leader" field must be provided')
    return request.leader


async def _proclaim(queue: Queue, leader: pb.LeaderKey, value: bytes) -> rpc_pb2.ResponseHeader:
    same = rpc_pb2.Compare(
        key=leader.key, target=rpc_pb2.Compare.CREATE, result=rpc_pb2.Compare.EQUAL, create_revision=leader.rev
    )
    put = rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=leader.key, value=value, lease=leader.lease))
    response = await queue.propose(Kind.TXN, rpc_pb2.TxnRequest(compare=[same], success=[put]))
    if not response.succeeded:
        raise NotElected("election: not leader")
    return response.header
