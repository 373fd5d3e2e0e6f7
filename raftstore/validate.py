"""What is wrong with a request by itself, found before it costs a log entry. Pure."""

from collections.abc import Sequence

from protos.etcd import rpc_pb2 as pb
from raftstore.errors import (
    DuplicateKey,
    EmptyKey,
    InvalidSortOption,
    KeyNotFound,
    LeaseProvided,
    TooManyOps,
    ValueProvided,
)
from raftstore.limits import TXN_OPS_MAX

_SORT_ORDERS = set(pb.RangeRequest.SortOrder.values())
_SORT_TARGETS = set(pb.RangeRequest.SortTarget.values())


def check_range(request: pb.RangeRequest) -> None:
    """Raise EmptyKey or InvalidSortOption."""
    if not request.key:
        raise EmptyKey("a range needs a key")
    if request.sort_order not in _SORT_ORDERS or request.sort_target not in _SORT_TARGETS:
        raise InvalidSortOption("unknown sort order or target")


def check_put(request: pb.PutRequest) -> None:
    """Raise EmptyKey, ValueProvided or LeaseProvided."""
    if not request.key:
        raise EmptyKey("a put needs a key")
    if request.ignore_value and request.value:
        raise ValueProvided("ignore_value goes without a value")
    if request.ignore_lease and request.lease:
        raise LeaseProvided("ignore_lease goes without a lease")


def check_delete(request: pb.DeleteRangeRequest) -> None:
    """Raise EmptyKey."""
    if not request.key:
        raise EmptyKey("a deletion needs a key")


def check_txn(request: pb.TxnRequest, ops_max: int = TXN_OPS_MAX) -> None:
    """Raise what is wrong with any part, TooManyOps or DuplicateKey."""
    _check_operations(request, ops_max)
    _claims(request.success)
    _claims(request.failure)


def is_read_only(request: pb.TxnRequest) -> bool:
    """Whether no branch of the nest can write."""
    return all(
        op.HasField("request_range") or (op.HasField("request_txn") and is_read_only(op.request_txn))
        for ops in (request.success, request.failure)
        for op in ops
    )


def is_serializable(request: pb.TxnRequest) -> bool:
    """Whether every read of a read-only transaction accepts stale data."""
    return all(
        op.request_range.serializable if op.HasField("request_range") else is_serializable(op.request_txn)
        for ops in (request.success, request.failure)
        for op in ops
    )


def _check_operations(txn: pb.TxnRequest, budget: int) -> None:
    used = max(len(txn.compare), len(txn.success), len(txn.failure))
    if used > budget:
        raise TooManyOps("a transaction has more operations than allowed")
    for compare in txn.compare:
        if not compare.key:
            raise EmptyKey("a compare needs a key")
    for ops in (txn.success, txn.failure):
        for op in ops:
            _check_operation(op, budget - used)


def _check_operation(op: pb.RequestOp, budget: int) -> None:
    match op.WhichOneof("request"):
        case "request_range":
            check_range(op.request_range)
        case "request_put":
            check_put(op.request_put)
        case "request_delete_range":
            check_delete(op.request_delete_range)
        case "request_txn":
            _check_operations(op.request_txn, budget)
        case None:
            raise KeyNotFound("an operation of the transaction is empty")


Interval = tuple[bytes, bytes]
"""Keys ``[start, end)``."""


def _claims(ops: Sequence[pb.RequestOp]) -> tuple[set[bytes], list[Interval]]:
    """Keys put and intervals deleted by one branch. Raises DuplicateKey if a key would be written twice.

    Two branches of one nested transaction may put the same key: only one of them runs.
    """
    deletes = [_interval(op.request_delete_range) for op in ops if op.HasField("request_delete_range")]
    puts: set[bytes] = set()
    for op in ops:
        if op.HasField("request_txn"):
            then_puts, then_deletes = _claims(op.request_txn.success)
            else_puts, else_deletes = _claims(op.request_txn.failure)
            _check_unclaimed(then_puts | else_puts, puts, deletes)
            puts |= then_puts | else_puts
            deletes += then_deletes + else_deletes
    for op in ops:
        if op.HasField("request_put"):
            _check_unclaimed({op.request_put.key}, puts, deletes)
            puts.add(op.request_put.key)
    return puts, deletes


def _interval(delete: pb.DeleteRangeRequest) -> Interval:
    """What a deletion claims. etcd takes the end ``\\0`` by its letter here, so an endless deletion claims nothing."""
    return delete.key, delete.range_end or delete.key + b"\0"


def _check_unclaimed(keys: set[bytes], puts: set[bytes], deletes: list[Interval]) -> None:
    for key in keys:
        if key in puts or any(start <= key < end for start, end in deletes):
            raise DuplicateKey(f"the transaction writes the key {key!r} twice")
