"""etcdserverpb.Auth: logging in, users, roles. Passwords are hashed here, before anything enters the log."""

import asyncio
from typing import Any

from grpc.aio import ServicerContext as Context

from protos.etcd import rpc_pb2 as pb
from protos.etcd import rpc_pb2_grpc as rpc
from raftstore.auth.passwords import hash_password, matches
from raftstore.auth.tokens import random_part
from raftstore.command import Kind
from raftstore.errors import AuthFailed, NoPasswordUser
from raftstore.member import Member
from raftstore.server.calls import unary
from raftstore.server.identity import identify


class Auth(rpc.AuthServicer):
    """Changes go through the log; questions are answered here after a read index."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._auth = member.machine.auth

    async def _propose(self, kind: Kind, request: Any, context: Context) -> Any:
        return await self._member.propose(kind, request, identify(self._member, context))

    # -- logging in ----------------------------------------------------------------------------------------------

    @unary
    async def Authenticate(self, request: pb.AuthenticateRequest, context: Context) -> pb.AuthenticateResponse:
        """A token for a name and a password. Checked again if users change while the hash is computed."""
        await self._member.linearize()
        while True:
            revision = self._auth.revision
            await self._check_password(request.name, request.password)
            token = self._member.tokens.issue(request.name, revision)
            if token is not None:
                response = pb.AuthenticateResponse(header=self._member.header(), token=token)
            else:
                entry = pb.AuthenticateRequest(name=request.name, password=random_part())
                response = await self._member.propose(Kind.AUTHENTICATE, entry)
            if self._auth.revision == revision:
                return response

    async def _check_password(self, name: str, password: str) -> None:
        self._auth.check_enabled()
        user = self._auth.users.get(name)
        if user is None:
            raise AuthFailed(f"there is no user {name}")
        if user.options.no_password:
            raise NoPasswordUser("auth: authentication failed, password was given for no password user")
        if not await asyncio.to_thread(matches, password, user.password):
            raise AuthFailed(f"wrong password of {name}")

    @unary
    async def AuthStatus(self, request: pb.AuthStatusRequest, context: Context) -> pb.AuthStatusResponse:
        """Whether authentication is on, and the auth revision."""
        await self._member.linearize()
        header = self._member.header()
        return pb.AuthStatusResponse(header=header, enabled=self._auth.enabled, authRevision=self._auth.revision)

    @unary
    async def AuthEnable(self, request: pb.AuthEnableRequest, context: Context) -> pb.AuthEnableResponse:
        """Turn it on."""
        return await self._propose(Kind.AUTH_ENABLE, request, context)

    @unary
    async def AuthDisable(self, request: pb.AuthDisableRequest, context: Context) -> pb.AuthDisableResponse:
        """Turn it off."""
        return await self._propose(Kind.AUTH_DISABLE, request, context)

    # -- users ---------------------------------------------------------------------------------------------------

    @unary
    async def UserAdd(self, request: pb.AuthUserAddRequest, context: Context) -> pb.AuthUserAddResponse:
        """Add a user."""
        entry = pb.AuthUserAddRequest(name=request.name, options=request.options)
        if not request.options.no_password:
            entry.hashedPassword = await _hashed(request.password)
        return await self._propose(Kind.USER_ADD, entry, context)

    @unary
    async def UserChangePassword(
        self, request: pb.AuthUserChangePasswordRequest, context: Context
    ) -> pb.AuthUserChangePasswordResponse:
        """Set a user's password; its tokens end."""
        entry = pb.AuthUserChangePasswordRequest(name=request.name, hashedPassword=await _hashed(request.password))
        return await self._propose(Kind.USER_CHANGE_PASSWORD, entry, context)

    @unary
    async def UserDelete(self, request: pb.AuthUserDeleteRequest, context: Context) -> pb.AuthUserDeleteResponse:
        """Remove a user; its tokens end."""
        return await self._propose(Kind.USER_DELETE, request, context)

    @unary
    async def UserGrantRole(
        self, request: pb.AuthUserGrantRoleRequest, context: Context
    ) -> pb.AuthUserGrantRoleResponse:
        """Give a user a role."""
        return await self._propose(Kind.USER_GRANT_ROLE, request, context)

    @unary
    async def UserRevokeRole(
        self, request: pb.AuthUserRevokeRoleRequest, context: Context
    ) -> pb.AuthUserRevokeRoleResponse:
        """Take a role from a user."""
        return await self._propose(Kind.USER_REVOKE_ROLE, request, context)

    @unary
    async def UserGet(self, request: pb.AuthUserGetRequest, context: Context) -> pb.AuthUserGetResponse:
        """A user's roles; everybody may ask for their own."""
        await self._member.linearize()
        who = identify(self._member, context)
        if request.name != who.user:
            self._auth.check_admin(who)
        return pb.AuthUserGetResponse(header=self._member.header(), roles=self._auth.user(request.name).roles)

    @unary
    async def UserList(self, request: pb.AuthUserListRequest, context: Context) -> pb.AuthUserListResponse:
        """All user names, sorted."""
        await self._check_admin(context)
        return pb.AuthUserListResponse(header=self._member.header(), users=sorted(self._auth.users))

    # -- roles ---------------------------------------------------------------------------------------------------

    @unary
    async def RoleAdd(self, request: pb.AuthRoleAddRequest, context: Context) -> pb.AuthRoleAddResponse:
        """Add a role."""
        return await self._propose(Kind.ROLE_ADD, request, context)

    @unary
    async def RoleDelete(self, request: pb.AuthRoleDeleteRequest, context: Context) -> pb.AuthRoleDeleteResponse:
        """Remove a role, also from its users."""
        return await self._propose(Kind.ROLE_DELETE, request, context)

    @unary
    async def RoleGrantPermission(
        self, request: pb.AuthRoleGrantPermissionRequest, context: Context
    ) -> pb.AuthRoleGrantPermissionResponse:
        """Let a role read or write a range of keys."""
        return await self._propose(Kind.ROLE_GRANT_PERMISSION, request, context)

    @unary
    async def RoleRevokePermission(
        self, request: pb.AuthRoleRevokePermissionRequest, context: Context
    ) -> pb.AuthRoleRevokePermissionResponse:
        """Undo a grant of exactly the same range."""
        return await self._propose(Kind.ROLE_REVOKE_PERMISSION, request, context)

    @unary
    async def RoleGet(self, request: pb.AuthRoleGetRequest, context: Context) -> pb.AuthRoleGetResponse:
        """A role's permissions; everybody may ask for roles they have."""
        await self._member.linearize()
        who = identify(self._member, context)
        if not self._auth.has_role(who.user, request.role):
            self._auth.check_admin(who)
        return pb.AuthRoleGetResponse(header=self._member.header(), perm=self._auth.permissions(request.role))

    @unary
    async def RoleList(self, request: pb.AuthRoleListRequest, context: Context) -> pb.AuthRoleListResponse:
        """All role names, sorted."""
        await self._check_admin(context)
        return pb.AuthRoleListResponse(header=self._member.header(), roles=sorted(self._auth.roles))

    async def _check_admin(self, context: Context) -> None:
        await self._member.linearize()
        self._auth.check_admin(identify(self._member, context))


async def _hashed(password: str) -> str:
    return (await asyncio.to_thread(hash_password, password)).decode()
