"""Execute a transaction on a store: compares, checks, then operations, all or nothing."""

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from protos.etcd.kv_pb2 import KeyValue
from protos.etcd.rpc_pb2 import (
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    PutRequest,
    PutResponse,
    RequestOp,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)
from raftstore.errors import Compacted, FutureRevision, KeyNotFound, LeaseNotFound
from raftstore.mvcc.range import read_range
from raftstore.mvcc.store import Store, Write


class Branch(NamedTuple):
    """The operations a transaction will run, decided before any of them runs."""

    succeeded: bool
    ops: Sequence[RequestOp]
    nested: dict[int, "Branch"]
    """The branches of nested transactions, by their place in ``ops``."""


class Leases(Protocol):
    """What a write needs of the leases."""

    def exists(self, lease: int) -> bool:
        """Whether the lease is granted."""

    def attach(self, key: bytes, lease: int) -> None:
        """Tie the key to the lease, or to none (0), instead of its former one."""


def execute_txn(store: Store, leases: Leases, write: Write, txn: TxnRequest) -> TxnResponse:
    """Run ``txn`` within ``write``. Nothing is written when it raises LeaseNotFound, KeyNotFound, Compacted, ..."""
    branch = _choose(store, txn)
    _check(store, leases, branch)
    return _run(store, leases, write, branch)


# -- deciding ----------------------------------------------------------------------------------------------------


def _choose(store: Store, txn: TxnRequest) -> Branch:
    """Evaluate the compares of the nest against the state before the transaction."""
    succeeded = all(holds(store, compare) for compare in txn.compare)
    ops = txn.success if succeeded else txn.failure
    nested = {at: _choose(store, op.request_txn) for at, op in enumerate(ops) if op.HasField("request_txn")}
    return Branch(succeeded, ops, nested)


_FIELDS: dict[int, str] = {
    Compare.VERSION: "version",
    Compare.CREATE: "create_revision",
    Compare.MOD: "mod_revision",
    Compare.VALUE: "value",
    Compare.LEASE: "lease",
}

_OPERATORS: dict[int, Callable[[Any, Any], bool]] = {
    Compare.EQUAL: operator.eq,
    Compare.NOT_EQUAL: operator.ne,
    Compare.GREATER: operator.gt,
    Compare.LESS: operator.lt,
}

_MISSING = KeyValue()


def holds(store: Store, compare: Compare) -> bool:
    """Whether every selected key satisfies ``compare``. A missing key has zeros, and no value that could compare."""
    kvs = [store.load(rev) for rev in store.find(compare.key, compare.range_end)]
    if not kvs and compare.target == Compare.VALUE:
        return False
    field = _FIELDS.get(compare.target)
    operate = _OPERATORS.get(compare.result)
    if field is None or operate is None:
        return True
    wanted = getattr(compare, field)
    return all(operate(getattr(kv, field), wanted) for kv in kvs or [_MISSING])


# -- checking ----------------------------------------------------------------------------------------------------


def _check(store: Store, leases: Leases, branch: Branch) -> None:
    """Every put, then every range: a refusal must be the one that etcd finds first."""
    ops = list(_operations(branch))
    for op in ops:
        if op.HasField("request_put"):
            _check_key(store, op.request_put)
            _check_lease(leases, op.request_put)
    for op in ops:
        if op.HasField("request_range"):
            _check_revision(store, op.request_range.revision)


def _operations(branch: Branch) -> Iterator[RequestOp]:
    """What the nest will run, in order, without the nesting."""
    for at, op in enumerate(branch.ops):
        if at in branch.nested:
            yield from _operations(branch.nested[at])
        else:
            yield op


def _check_revision(store: Store, revision: int) -> None:
    if revision > store.revision:
        raise FutureRevision(f"revision {revision} is ahead of {store.revision}")
    if revision != 0 and revision < store.compact_revision:
        raise Compacted(compact_revision=store.compact_revision)


def check_put(store: Store, leases: Leases, put: PutRequest) -> None:
    """Raise LeaseNotFound or KeyNotFound, in this order, if a put by itself may not be applied."""
    _check_lease(leases, put)
    _check_key(store, put)


def _check_key(store: Store, put: PutRequest) -> None:
    if (put.ignore_value or put.ignore_lease) and store.index.get(put.key) is None:
        raise KeyNotFound("ignore_value and ignore_lease need an existing key")


def _check_lease(leases: Leases, put: PutRequest) -> None:
    if put.lease and not leases.exists(put.lease):
        raise LeaseNotFound(f"lease {put.lease:x} does not exist")


# -- doing -------------------------------------------------------------------------------------------------------


def _run(store: Store, leases: Leases, write: Write, branch: Branch) -> TxnResponse:
    response = TxnResponse(succeeded=branch.succeeded)
    for at, op in enumerate(branch.ops):
        if at in branch.nested:
            done = ResponseOp(response_txn=_run(store, leases, write, branch.nested[at]))
        else:
            done = _run_op(store, leases, write, op)
        response.responses.append(done)
    response.header.SetInParent()  # a nested transaction's header stays empty, as etcd's
    return response


def _run_op(store: Store, leases: Leases, write: Write, op: RequestOp) -> ResponseOp:
    if op.HasField("request_put"):
        return ResponseOp(response_put=execute_put(store, leases, write, op.request_put))
    if op.HasField("request_delete_range"):
        return ResponseOp(response_delete_range=execute_delete(leases, write, op.request_delete_range))
    found = read_range(store, op.request_range)
    found.header.revision = write.revision
    return ResponseOp(response_range=found)


def execute_put(store: Store, leases: Leases, write: Write, put: PutRequest) -> PutResponse:
    """Apply a put that ``check_put`` let pass."""
    value, lease = put.value, put.lease
    if put.ignore_value or put.ignore_lease:
        kept = store.get(put.key) or _MISSING
        value = kept.value if put.ignore_value else value
        lease = kept.lease if put.ignore_lease else lease
    prev = write.put(put.key, value, lease)
    if lease or (prev is not None and prev.lease):
        leases.attach(put.key, lease)
    response = PutResponse(prev_kv=prev) if put.prev_kv and prev is not None else PutResponse()
    response.header.revision = write.revision
    return response


def execute_delete(leases: Leases, write: Write, delete: DeleteRangeRequest) -> DeleteRangeResponse:
    """Apply a deletion."""
    deleted = write.delete_range(delete.key, delete.range_end)
    for prev in deleted:
        if prev.lease:
            leases.attach(prev.key, 0)
    response = DeleteRangeResponse(deleted=len(deleted), prev_kvs=deleted if delete.prev_kv else ())
    response.header.revision = write.revision
    return response
