"""etcdserverpb.Cluster: who the members are."""

import grpc

from protos.etcd import rpc_pb2 as pb
from protos.etcd import rpc_pb2_grpc as rpc
from protos.serving import unimplemented
from raftstore.member import Member
from raftstore.server.calls import unary


@unimplemented
class Cluster(rpc.ClusterServicer):
    """The list of members. Changing it is not built yet."""

    def __init__(self, member: Member) -> None:
        self._member = member

    @unary
    async def MemberList(
        self, request: pb.MemberListRequest, context: grpc.aio.ServicerContext
    ) -> pb.MemberListResponse:
        """All members; the header's revision is 0, as etcd's."""
        if request.linearizable:
            await self._member.linearize()
        config = self._member.config
        this = pb.Member(
            ID=self._member.id,
            name=config.name,
            peerURLs=config.initial_advertise_peer_urls,
            clientURLs=config.advertise_client_urls or config.listen_client_urls,
        )
        return pb.MemberListResponse(header=self._member.header(0), members=[this])
