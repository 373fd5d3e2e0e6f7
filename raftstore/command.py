"""What a log entry asks the state machine to do: ``kind u8 | proposer's id u64 | request``, little-endian.

The request is the client's own protobuf message, so a command is made and read without translation.
"""

from collections.abc import Callable
from enum import IntEnum
from struct import Struct
from typing import Any

from protos.etcd import rpc_pb2 as pb

_HEAD = Struct("<BQ")


class Kind(IntEnum):
    """The commands. Numbers are on disk: never reuse one."""

    PUT = 1
    DELETE_RANGE = 2
    TXN = 3
    COMPACT = 4
    LEASE_GRANT = 5
    LEASE_REVOKE = 6
    ALARM = 7


REQUESTS: dict[Kind, Callable[[], Any]] = {
    Kind.PUT: pb.PutRequest,
    Kind.DELETE_RANGE: pb.DeleteRangeRequest,
    Kind.TXN: pb.TxnRequest,
    Kind.COMPACT: pb.CompactionRequest,
    Kind.LEASE_GRANT: pb.LeaseGrantRequest,
    Kind.LEASE_REVOKE: pb.LeaseRevokeRequest,
    Kind.ALARM: pb.AlarmRequest,
}


def encode(kind: Kind, id: int, request: Any) -> bytes:
    """The entry data of a command. ``id`` lets the proposer recognise it when it is applied."""
    return _HEAD.pack(kind, id) + request.SerializeToString()


def id_of(data: bytes) -> int:
    """The proposer's id of a command."""
    return _HEAD.unpack_from(data)[1]


def decode(data: bytes) -> tuple[Kind, int, Any]:
    """Kind, id and request. Raises ValueError for a command of a newer version."""
    number, id = _HEAD.unpack_from(data)
    kind = Kind(number)
    request = REQUESTS[kind]()
    request.ParseFromString(data[_HEAD.size :])
    return kind, id, request
