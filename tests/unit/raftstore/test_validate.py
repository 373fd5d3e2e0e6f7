"""What is refused before it costs a log entry."""

import pytest

from protos.etcd import rpc_pb2 as pb
from raftstore import errors, validate
from raftstore.client import op_delete, op_put, op_range


def nested(*success: pb.RequestOp, failure: tuple[pb.RequestOp, ...] = ()) -> pb.RequestOp:
    return pb.RequestOp(request_txn=pb.TxnRequest(success=success, failure=failure))


@pytest.mark.parametrize(
    ("ops", "refusal"),
    [
        ([op_put(b"a", b"1"), op_put(b"a", b"2")], errors.DuplicateKey),
        ([op_put(b"b", b"1"), op_delete(b"a", b"c")], errors.DuplicateKey),
        ([op_put(b"a", b"1"), nested(op_put(b"a", b"2"))], errors.DuplicateKey),
        ([nested(op_put(b"a", b"1")), nested(op_put(b"a", b"2"))], errors.DuplicateKey),
        ([nested(op_delete(b"a", b"c")), op_put(b"b", b"1")], errors.DuplicateKey),
        ([nested(op_put(b"a", b"1"), failure=(op_put(b"a", b"2"),))], None),
        ([op_delete(b"a", b"c"), op_delete(b"b")], None),
        ([op_put(b"a", b"1"), op_range(b"a"), op_delete(b"b")], None),
        ([pb.RequestOp()], errors.KeyNotFound),
        ([op_range(b"")], errors.EmptyKey),
        ([nested(op_delete(b""))], errors.EmptyKey),
        ([op_range(b"a")] * 128, None),
        ([op_range(b"a")] * 129, errors.TooManyOps),
        ([op_range(b"a")] * 127 + [nested(op_range(b"a"))], errors.TooManyOps),
        ([op_range(b"a")] * 64 + [nested(*[op_range(b"a")] * 63)], None),
    ],
)
def test_transactions(ops: list[pb.RequestOp], refusal: type[Exception] | None) -> None:
    for request in (pb.TxnRequest(success=ops), pb.TxnRequest(failure=ops)):
        if refusal is None:
            validate.check_txn(request)
        else:
            with pytest.raises(refusal):
                validate.check_txn(request)


def test_a_compare_needs_a_key() -> None:
    with pytest.raises(errors.EmptyKey):
        validate.check_txn(pb.TxnRequest(compare=[pb.Compare()]))


@pytest.mark.parametrize(
    ("put", "refusal"),
    [
        (pb.PutRequest(), errors.EmptyKey),
        (pb.PutRequest(key=b"a", ignore_value=True, value=b"1"), errors.ValueProvided),
        (pb.PutRequest(key=b"a", ignore_lease=True, lease=1), errors.LeaseProvided),
    ],
)
def test_puts(put: pb.PutRequest, refusal: type[Exception]) -> None:
    with pytest.raises(refusal):
        validate.check_put(put)


@pytest.mark.parametrize("unknown", [{"sort_order": 9}, {"sort_target": 9}])
def test_unknown_sorting_is_refused(unknown: dict[str, int]) -> None:
    with pytest.raises(errors.InvalidSortOption):
        validate.check_range(pb.RangeRequest(key=b"a", **unknown))


def test_what_needs_no_log_entry() -> None:
    assert validate.is_read_only(pb.TxnRequest(success=[op_range(b"a"), nested(op_range(b"b"))]))
    assert not validate.is_read_only(pb.TxnRequest(success=[nested(op_delete(b"b"))]))
    assert validate.is_serializable(pb.TxnRequest(success=[op_range(b"a", serializable=True)]))
    assert not validate.is_serializable(pb.TxnRequest(success=[nested(op_range(b"a"))]))
