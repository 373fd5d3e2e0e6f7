"""The log entries that change users, roles and tokens."""

from collections.abc import Callable
from typing import Any

from protos.etcd import rpc_pb2 as pb
from raftstore.auth.store import AuthStore
from raftstore.auth.tokens import Tokens
from raftstore.command import Kind
from raftstore.errors import AuthFailed
from raftstore.mvcc.store import Write

Handler = Callable[[Any, Write], Any]


class AuthCommands:
    """Each handler applies one request and returns its response without header."""

    def __init__(self, auth: AuthStore, tokens: Tokens, index: Callable[[], int]) -> None:
        """``index`` tells which entry is being applied."""
        self._auth = auth
        self._tokens = tokens
        self._index = index

    def handlers(self) -> dict[Kind, Handler]:
        """The handler of each kind."""
        return {
            Kind.AUTH_ENABLE: self._enable,
            Kind.AUTH_DISABLE: self._disable,
            Kind.AUTHENTICATE: self._authenticate,
            Kind.USER_ADD: self._add_user,
            Kind.USER_DELETE: self._delete_user,
            Kind.USER_CHANGE_PASSWORD: self._change_password,
            Kind.USER_GRANT_ROLE: self._grant_role,
            Kind.USER_REVOKE_ROLE: self._revoke_role,
            Kind.ROLE_ADD: self._add_role,
            Kind.ROLE_DELETE: self._delete_role,
            Kind.ROLE_GRANT_PERMISSION: self._grant_permission,
            Kind.ROLE_REVOKE_PERMISSION: self._revoke_permission,
        }

    def _enable(self, request: pb.AuthEnableRequest, write: Write) -> pb.AuthEnableResponse:
        self._auth.enable()
        return pb.AuthEnableResponse()

    def _grant_role(self, request: pb.AuthUserGrantRoleRequest, write: Write) -> pb.AuthUserGrantRoleResponse:
        self._auth.grant_role(request.user, request.role)
        return pb.AuthUserGrantRoleResponse()

    def _revoke_role(self, request: pb.AuthUserRevokeRoleRequest, write: Write) -> pb.AuthUserRevokeRoleResponse:
        self._auth.revoke_role(request.name, request.role)
        return pb.AuthUserRevokeRoleResponse()

    def _add_role(self, request: pb.AuthRoleAddRequest, write: Write) -> pb.AuthRoleAddResponse:
        self._auth.add_role(request.name)
        return pb.AuthRoleAddResponse()

    def _delete_role(self, request: pb.AuthRoleDeleteRequest, write: Write) -> pb.AuthRoleDeleteResponse:
        self._auth.delete_role(request.role)
        return pb.AuthRoleDeleteResponse()

    def _disable(self, request: pb.AuthDisableRequest, write: Write) -> pb.AuthDisableResponse:
        self._auth.disable()
        self._tokens.clear()
        return pb.AuthDisableResponse()

    def _authenticate(self, request: pb.AuthenticateRequest, write: Write) -> pb.AuthenticateResponse:
        self._auth.check_enabled()
        if request.name not in self._auth.users:
            raise AuthFailed("the user was deleted meanwhile")
        return pb.AuthenticateResponse(token=self._tokens.register(request.name, request.password, self._index()))

    def _add_user(self, request: pb.AuthUserAddRequest, write: Write) -> pb.AuthUserAddResponse:
        hashed = request.hashedPassword.encode()
        self._auth.add_user(request.name, hashed, request.options.no_password)
        return pb.AuthUserAddResponse()

    def _delete_user(self, request: pb.AuthUserDeleteRequest, write: Write) -> pb.AuthUserDeleteResponse:
        self._auth.delete_user(request.name)
        self._tokens.forget_user(request.name)
        return pb.AuthUserDeleteResponse()

    def _change_password(
        self, request: pb.AuthUserChangePasswordRequest, write: Write
    ) -> pb.AuthUserChangePasswordResponse:
        self._auth.change_password(request.name, request.hashedPassword.encode())
        self._tokens.forget_user(request.name)
        return pb.AuthUserChangePasswordResponse()

    def _grant_permission(
        self, request: pb.AuthRoleGrantPermissionRequest, write: Write
    ) -> pb.AuthRoleGrantPermissionResponse:
        self._auth.grant_permission(request.name, request.perm if request.HasField("perm") else None)
        return pb.AuthRoleGrantPermissionResponse()

    def _revoke_permission(
        self, request: pb.AuthRoleRevokePermissionRequest, write: Write
    ) -> pb.AuthRoleRevokePermissionResponse:
        self._auth.revoke_permission(request.role, request.key, request.range_end)
        return pb.AuthRoleRevokePermissionResponse()
