"""etcdserverpb.Lease: keys that go when their owner does."""

import random
from collections.abc import AsyncIterator

import grpc

from protos.etcd import rpc_pb2 as pb
from protos.etcd import rpc_pb2_grpc as rpc
from raftstore.auth.identity import CLUSTER
from raftstore.command import Kind
from raftstore.errors import EtcdError, LeaseNotFound, LeaseTTLTooLarge
from raftstore.limits import LEASE_TTL_S_MAX
from raftstore.member import Member
from raftstore.server.calls import unary
from raftstore.server.errors import refuse
from raftstore.server.identity import identify


class Lease(rpc.LeaseServicer):
    """Grants and revocations go through the log; the clock is the leader's."""

    def __init__(self, member: Member) -> None:
        self._member = member

    @unary
    async def LeaseGrant(
        self, request: pb.LeaseGrantRequest, context: grpc.aio.ServicerContext
    ) -> pb.LeaseGrantResponse:
        """A new lease of at least the asked TTL."""
        if request.TTL > LEASE_TTL_S_MAX:
            raise LeaseTTLTooLarge(f"a lease may live {LEASE_TTL_S_MAX} s")
        granted = pb.LeaseGrantRequest(
            ID=request.ID or free_lease_id(self._member), TTL=max(request.TTL, self._member.config.lease_ttl_s_min)
        )
        return await self._member.propose(Kind.LEASE_GRANT, granted, identify(self._member, context))

    @unary
    async def LeaseRevoke(
        self, request: pb.LeaseRevokeRequest, context: grpc.aio.ServicerContext
    ) -> pb.LeaseRevokeResponse:
        """End a lease and delete its keys."""
        return await self._member.propose(Kind.LEASE_REVOKE, request, identify(self._member, context))

    async def LeaseKeepAlive(
        self, requests: AsyncIterator[pb.LeaseKeepAliveRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.LeaseKeepAliveResponse]:
        """Restart a lease's TTL for every request; TTL 0 tells that it is gone."""
        try:
            async for request in requests:
                response = pb.LeaseKeepAliveResponse(header=self._member.header(), ID=request.ID)
                response.TTL = await self._renew(request.ID, context)
                yield response
        except EtcdError as err:
            await refuse(context, err)

    async def _renew(self, id: int, context: grpc.aio.ServicerContext) -> int:
        await self._member.linearize()
        machine, who = self._member.machine, identify(self._member, context)
        machine.auth.check_known(who)
        machine.guard.check_lease_write(who, id)
        try:
            ttl_s = self._member.renew_lease(id)
            if machine.lessor.get(id).remaining_s:  # or a new leader would go on from before the renewal
                full = pb.LeaseCheckpointRequest(checkpoints=[pb.LeaseCheckpoint(ID=id)])
                await self._member.propose(Kind.LEASE_CHECKPOINT, full, CLUSTER)
            return ttl_s
        except LeaseNotFound:
            return 0

    @unary
    async def LeaseTimeToLive(
        self, request: pb.LeaseTimeToLiveRequest, context: grpc.aio.ServicerContext
    ) -> pb.LeaseTimeToLiveResponse:
        """Remaining and granted TTL; TTL -1 for an unknown lease."""
        await self._member.linearize()
        machine, who = self._member.machine, identify(self._member, context)
        machine.auth.check_known(who)
        if request.keys:
            machine.guard.check_lease_read(who, request.ID)
        response = pb.LeaseTimeToLiveResponse(header=self._member.header(), ID=request.ID)
        try:
            lease = self._member.lessor.get(request.ID)
            response.TTL = int(self._member.remaining_s(request.ID))
        except LeaseNotFound:
            response.TTL = -1
            return response
        response.grantedTTL = lease.ttl_s
        if request.keys:
            response.keys.extend(sorted(lease.keys))
        return response

    @unary
    async def LeaseLeases(
        self, request: pb.LeaseLeasesRequest, context: grpc.aio.ServicerContext
    ) -> pb.LeaseLeasesResponse:
        """All leases, the soonest to expire first."""
        await self._member.linearize()
        self._member.machine.guard.check_leases_read(identify(self._member, context))
        leases = [pb.LeaseStatus(ID=id) for id in self._member.deadlines.by_end()]
        return pb.LeaseLeasesResponse(header=self._member.header(), leases=leases)


def free_lease_id(member: Member) -> int:
    """A positive id that no lease has."""
    while True:
        id = random.getrandbits(63)
        if id and not member.lessor.exists(id):
            return id
