"""What a log entry asks the state machine to do, little-endian::

    kind u8 | proposer's id u64 | [auth revision i64 | size u16 | user] | request

The request is the client's own protobuf message, so a command is made and read without translation. The user is there
when bit 7 of the kind is set: requests made while authentication is off do not pay for it.
"""

from collections.abc import Callable
from enum import IntEnum
from struct import Struct
from typing import Any, NamedTuple

from protos.etcd import rpc_pb2 as pb
from raftstore.auth.identity import ANONYMOUS, Identity

_HEAD = Struct("<BQ")
_WHO = Struct("<qH")
_HAS_WHO = 0x80


class Kind(IntEnum):
    """The commands. Numbers are on disk: never reuse one."""

    PUT = 1
    DELETE_RANGE = 2
    TXN = 3
    COMPACT = 4
    LEASE_GRANT = 5
    LEASE_REVOKE = 6
    ALARM = 7
    AUTH_ENABLE = 8
    AUTH_DISABLE = 9
    AUTHENTICATE = 10
    """Of its request ``password`` is the random part of the token; passwords never enter the log."""
    USER_ADD = 11
    USER_DELETE = 12
    USER_CHANGE_PASSWORD = 13
    USER_GRANT_ROLE = 14
    USER_REVOKE_ROLE = 15
    ROLE_ADD = 16
    ROLE_DELETE = 17
    ROLE_GRANT_PERMISSION = 18
    ROLE_REVOKE_PERMISSION = 19
    LEASE_CHECKPOINT = 20


REQUESTS: dict[Kind, Callable[[], Any]] = {
    Kind.PUT: pb.PutRequest,
    Kind.DELETE_RANGE: pb.DeleteRangeRequest,
    Kind.TXN: pb.TxnRequest,
    Kind.COMPACT: pb.CompactionRequest,
    Kind.LEASE_GRANT: pb.LeaseGrantRequest,
    Kind.LEASE_REVOKE: pb.LeaseRevokeRequest,
    Kind.ALARM: pb.AlarmRequest,
    Kind.AUTH_ENABLE: pb.AuthEnableRequest,
    Kind.AUTH_DISABLE: pb.AuthDisableRequest,
    Kind.AUTHENTICATE: pb.AuthenticateRequest,
    Kind.USER_ADD: pb.AuthUserAddRequest,
    Kind.USER_DELETE: pb.AuthUserDeleteRequest,
    Kind.USER_CHANGE_PASSWORD: pb.AuthUserChangePasswordRequest,
    Kind.USER_GRANT_ROLE: pb.AuthUserGrantRoleRequest,
    Kind.USER_REVOKE_ROLE: pb.AuthUserRevokeRoleRequest,
    Kind.ROLE_ADD: pb.AuthRoleAddRequest,
    Kind.ROLE_DELETE: pb.AuthRoleDeleteRequest,
    Kind.ROLE_GRANT_PERMISSION: pb.AuthRoleGrantPermissionRequest,
    Kind.ROLE_REVOKE_PERMISSION: pb.AuthRoleRevokePermissionRequest,
    Kind.LEASE_CHECKPOINT: pb.LeaseCheckpointRequest,
}


class Command(NamedTuple):
    """A decoded entry."""

    kind: Kind
    id: int
    request: Any
    who: Identity


def encode(kind: Kind, id: int, request: Any, who: Identity = ANONYMOUS) -> bytes:
    """The entry data of a command. ``id`` lets the proposer recognise it when it is applied."""
    if who is ANONYMOUS:
        return _HEAD.pack(kind, id) + request.SerializeToString()
    user = who.user.encode()
    return b"".join(
        (_HEAD.pack(kind | _HAS_WHO, id), _WHO.pack(who.revision, len(user)), user, request.SerializeToString())
    )


def id_of(data: bytes) -> int:
    """The proposer's id of a command."""
    return _HEAD.unpack_from(data)[1]


def decode(data: bytes) -> Command:
    """The command. Raises ValueError for a command of a newer version."""
    number, id = _HEAD.unpack_from(data)
    who, start = ANONYMOUS, _HEAD.size
    if number & _HAS_WHO:
        revision, size = _WHO.unpack_from(data, start)
        start += _WHO.size
        who = Identity(data[start : start + size].decode(), revision)
        start += size
    kind = Kind(number & ~_HAS_WHO)
    request = REQUESTS[kind]()
    request.ParseFromString(data[start:])
    return Command(kind, id, request, who)
