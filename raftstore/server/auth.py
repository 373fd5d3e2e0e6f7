"""etcdserverpb.Auth: authentication is always off in this version; TLS client certificates guard the port."""

import grpc

from protos.etcd import rpc_pb2 as pb
from protos.etcd import rpc_pb2_grpc as rpc
from protos.serving import unimplemented
from raftstore.errors import AuthNotEnabled
from raftstore.member import Member
from raftstore.server.calls import unary


@unimplemented
class Auth(rpc.AuthServicer):
    """Tells clients to go on without a token."""

    def __init__(self, member: Member) -> None:
        self._member = member

    @unary
    async def AuthStatus(
        self, request: pb.AuthStatusRequest, context: grpc.aio.ServicerContext
    ) -> pb.AuthStatusResponse:
        """Off, at the first auth revision."""
        return pb.AuthStatusResponse(header=self._member.header(), enabled=False, authRevision=1)

    @unary
    async def AuthDisable(
        self, request: pb.AuthDisableRequest, context: grpc.aio.ServicerContext
    ) -> pb.AuthDisableResponse:
        """It is off already."""
        return pb.AuthDisableResponse(header=self._member.header())

    @unary
    async def Authenticate(
        self, request: pb.AuthenticateRequest, context: grpc.aio.ServicerContext
    ) -> pb.AuthenticateResponse:
        """No tokens without authentication."""
        raise AuthNotEnabled("authentication is not enabled")
