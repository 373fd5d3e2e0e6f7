"""The wire form of every store error: gRPC code and exact text. The texts are API: clients match on them."""

from typing import NoReturn

import grpc
from grpc import StatusCode

from raftstore import errors
from raftstore.errors import EtcdError

WIRE: dict[type[EtcdError], tuple[StatusCode, str]] = {
    errors.EmptyKey: (StatusCode.INVALID_ARGUMENT, "etcdserver: key is not provided"),
    errors.KeyNotFound: (StatusCode.INVALID_ARGUMENT, "etcdserver: key not found"),
    errors.ValueProvided: (StatusCode.INVALID_ARGUMENT, "etcdserver: value is provided"),
    errors.LeaseProvided: (StatusCode.INVALID_ARGUMENT, "etcdserver: lease is provided"),
    errors.TooManyOps: (StatusCode.INVALID_ARGUMENT, "etcdserver: too many operations in txn request"),
    errors.DuplicateKey: (StatusCode.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request"),
    errors.InvalidSortOption: (StatusCode.INVALID_ARGUMENT, "etcdserver: invalid sort option"),
    errors.TooLarge: (StatusCode.INVALID_ARGUMENT, "etcdserver: request is too large"),
    errors.UserEmpty: (StatusCode.INVALID_ARGUMENT, "etcdserver: user name is empty"),
    errors.RoleEmpty: (StatusCode.INVALID_ARGUMENT, "etcdserver: role name is empty"),
    errors.AuthFailed: (
        StatusCode.INVALID_ARGUMENT,
        "etcdserver: authentication failed, invalid user ID or password",
    ),
    errors.PermissionNotGiven: (StatusCode.INVALID_ARGUMENT, "etcdserver: permission not given"),
    errors.InvalidAuthManagement: (StatusCode.INVALID_ARGUMENT, "etcdserver: invalid auth management"),
    errors.OldAuthRevision: (StatusCode.INVALID_ARGUMENT, "etcdserver: revision of auth store is old"),
    errors.DowngradeTargetFormat: (
        StatusCode.INVALID_ARGUMENT,
        "etcdserver: wrong downgrade target version format",
    ),
    errors.InvalidDowngradeTarget: (StatusCode.INVALID_ARGUMENT, "etcdserver: invalid downgrade target version"),
    errors.Compacted: (StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted"),
    errors.FutureRevision: (StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision"),
    errors.LeaseTTLTooLarge: (StatusCode.OUT_OF_RANGE, "etcdserver: too large lease TTL"),
    errors.NoSpace: (StatusCode.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded"),
    errors.TooManyRequests: (StatusCode.RESOURCE_EXHAUSTED, "etcdserver: too many requests"),
    errors.LeaseNotFound: (StatusCode.NOT_FOUND, "etcdserver: requested lease not found"),
    errors.MemberNotFound: (StatusCode.NOT_FOUND, "etcdserver: member not found"),
    errors.LeaseExists: (StatusCode.FAILED_PRECONDITION, "etcdserver: lease already exists"),
    errors.AuthNotEnabled: (StatusCode.FAILED_PRECONDITION, "etcdserver: authentication is not enabled"),
    errors.NotLeader: (StatusCode.FAILED_PRECONDITION, "etcdserver: not leader"),
    errors.LearnerOnly: (StatusCode.FAILED_PRECONDITION, "etcdserver: rpc not supported for learner"),
    errors.BadLeaderTransferee: (StatusCode.FAILED_PRECONDITION, "etcdserver: bad leader transferee"),
    errors.NoDowngrade: (StatusCode.FAILED_PRECONDITION, "etcdserver: no inflight downgrade job"),
    errors.RootUserMissing: (StatusCode.FAILED_PRECONDITION, "etcdserver: root user does not exist"),
    errors.RootRoleMissing: (StatusCode.FAILED_PRECONDITION, "etcdserver: root user does not have root role"),
    errors.UserExists: (StatusCode.FAILED_PRECONDITION, "etcdserver: user name already exists"),
    errors.UserNotFound: (StatusCode.FAILED_PRECONDITION, "etcdserver: user name not found"),
    errors.RoleExists: (StatusCode.FAILED_PRECONDITION, "etcdserver: role name already exists"),
    errors.RoleNotFound: (StatusCode.FAILED_PRECONDITION, "etcdserver: role name not found"),
    errors.RoleNotGranted: (StatusCode.FAILED_PRECONDITION, "etcdserver: role is not granted to the user"),
    errors.PermissionNotGranted: (
        StatusCode.FAILED_PRECONDITION,
        "etcdserver: permission is not granted to the role",
    ),
    errors.PermissionDenied: (StatusCode.PERMISSION_DENIED, "etcdserver: permission denied"),
    errors.Unauthenticated: (StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token"),
    errors.Corrupt: (StatusCode.DATA_LOSS, "etcdserver: corrupt cluster"),
    errors.WatchCanceled: (StatusCode.CANCELLED, "etcdserver: watch canceled"),
    errors.NoLeader: (StatusCode.UNAVAILABLE, "etcdserver: no leader"),
    errors.LeaderChanged: (StatusCode.UNAVAILABLE, "etcdserver: leader changed"),
    errors.Stopped: (StatusCode.UNAVAILABLE, "etcdserver: server stopped"),
    errors.RequestTimeout: (StatusCode.UNAVAILABLE, "etcdserver: request timed out"),
}

_BY_TEXT: dict[str, type[EtcdError]] = {text: kind for kind, (_, text) in WIRE.items()}

_BY_CODE: dict[StatusCode, type[EtcdError]] = {
    StatusCode.INVALID_ARGUMENT: errors.InvalidRequest,
    StatusCode.OUT_OF_RANGE: errors.OutOfRange,
    StatusCode.RESOURCE_EXHAUSTED: errors.ResourceExhausted,
    StatusCode.NOT_FOUND: errors.NotFound,
    StatusCode.FAILED_PRECONDITION: errors.FailedPrecondition,
    StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    StatusCode.DATA_LOSS: errors.Corrupt,
    StatusCode.UNIMPLEMENTED: errors.Unimplemented,
    StatusCode.UNAVAILABLE: errors.Unavailable,
    StatusCode.DEADLINE_EXCEEDED: errors.RequestTimeout,
}


def to_wire(err: EtcdError) -> tuple[StatusCode, str]:
    """Code and text of ``err``; what the table lacks is UNKNOWN with its own text, as in etcd."""
    if isinstance(err, errors.Unimplemented):
        return StatusCode.UNIMPLEMENTED, str(err)
    return WIRE.get(type(err), (StatusCode.UNKNOWN, str(err)))


def from_wire(code: StatusCode, text: str) -> EtcdError:
    """The error a client raises for a status: by text, or by code for texts that are not in the table."""
    kind = _BY_TEXT.get(text) or _BY_CODE.get(code, EtcdError)
    return kind(text)


async def refuse(context: grpc.aio.ServicerContext, err: EtcdError) -> NoReturn:
    """End the call with ``err`` in its wire form."""
    code, text = to_wire(err)
    await context.abort(code, text)
    raise AssertionError("abort raises")
