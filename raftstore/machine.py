"""The state machine: applies commands in log order, alike on every member. No clock, no randomness, no waiting."""

from collections.abc import Callable
from typing import Any, NamedTuple

from protos.etcd import rpc_pb2 as pb
from raftstore.auth.commands import AuthCommands
from raftstore.auth.guard import Guard
from raftstore.auth.identity import ANONYMOUS, Identity
from raftstore.auth.store import AuthStore
from raftstore.auth.tokens import Tokens
from raftstore.command import Kind
from raftstore.errors import Corrupt, EtcdError, NoSpace
from raftstore.lease import Lessor
from raftstore.mvcc.backend import Backend
from raftstore.mvcc.store import Event, Store, Write
from raftstore.mvcc.txn import check_put, execute_delete, execute_put, execute_txn

_FACT_APPLIED = b"raft/applied"
_FACT_ALARM = b"alarm/"

_CHANGES = {Kind.PUT, Kind.DELETE_RANGE, Kind.TXN, Kind.COMPACT, Kind.LEASE_GRANT, Kind.LEASE_REVOKE}
"""What the CORRUPT alarm stops."""


class Result(NamedTuple):
    """What a command did: the response without the member's part of the header, or the refusal; and the events."""

    outcome: Any | EtcdError
    events: list[Event]


class Machine:
    """Keys, leases, alarms, users and roles."""

    def __init__(self, backend: Backend, tokens: Tokens) -> None:
        """Load the state of the last checkpoint. ``tokens`` learns of the tokens that entries make."""
        self.backend = backend
        self.store = Store(backend)
        self.lessor = Lessor(backend, self.store)
        self.auth = AuthStore(backend)
        self.guard = Guard(self.auth, self.lessor)
        applied = backend.stored_facts(_FACT_APPLIED).get(_FACT_APPLIED, b"0 0").split()
        self.applied_index, self.applied_term = int(applied[0]), int(applied[1])
        self.alarms: set[tuple[int, int]] = {_alarm_of(name) for name in backend.stored_facts(_FACT_ALARM)}
        self._handlers: dict[Kind, Callable[[Any, Write], Any]] = {
            Kind.PUT: self._put,
            Kind.DELETE_RANGE: self._delete_range,
            Kind.TXN: self._txn,
            Kind.COMPACT: self._compact,
            Kind.LEASE_GRANT: self._lease_grant,
            Kind.LEASE_REVOKE: self._lease_revoke,
            Kind.ALARM: self._alarm,
            Kind.LEASE_CHECKPOINT: self._lease_checkpoint,
            **AuthCommands(self.auth, tokens, lambda: self.applied_index).handlers(),
        }

    def apply(self, index: int, term: int, kind: Kind, request: Any, who: Identity = ANONYMOUS) -> Result:
        """Apply the entry at ``index``, made by ``who``. A refusal is a result too, the same on every member."""
        self.applied_index, self.applied_term = index, term
        write = self.store.write()
        try:
            if self.alarms and kind in _CHANGES:
                self._check_healthy()
            self.guard.check_command(who, kind, request)
            response = self._handlers[kind](request, write)
        except EtcdError as refusal:
            return Result(refusal, [])
        events = write.end()
        response.header.revision = self.store.revision
        return Result(response, events)

    def note_applied(self, index: int, term: int) -> None:
        """An entry without a command passed."""
        self.applied_index, self.applied_term = index, term

    def before_checkpoint(self) -> None:
        """Put the facts that belong to the checkpoint about to be taken into it."""
        self.store.note_revision()
        self.backend.set_fact(_FACT_APPLIED, b"%d %d" % (self.applied_index, self.applied_term))

    # -- commands ------------------------------------------------------------------------------------------------

    def _put(self, request: pb.PutRequest, write: Write) -> pb.PutResponse:
        self._check_space()
        check_put(self.store, self.lessor, request)
        return execute_put(self.store, self.lessor, write, request)

    def _delete_range(self, request: pb.DeleteRangeRequest, write: Write) -> pb.DeleteRangeResponse:
        return execute_delete(self.lessor, write, request)

    def _txn(self, request: pb.TxnRequest, write: Write) -> pb.TxnResponse:
        if self.alarms and has_put(request):
            self._check_space()
        return execute_txn(self.store, self.lessor, write, request)

    def _compact(self, request: pb.CompactionRequest, write: Write) -> pb.CompactionResponse:
        self.store.compact(request.revision)
        return pb.CompactionResponse()

    def _lease_grant(self, request: pb.LeaseGrantRequest, write: Write) -> pb.LeaseGrantResponse:
        self._check_space()
        lease = self.lessor.grant(request.ID, request.TTL)
        return pb.LeaseGrantResponse(ID=lease.id, TTL=lease.ttl_s)

    def _lease_revoke(self, request: pb.LeaseRevokeRequest, write: Write) -> pb.LeaseRevokeResponse:
        self.lessor.revoke(request.ID, write)
        return pb.LeaseRevokeResponse()

    def _lease_checkpoint(self, request: pb.LeaseCheckpointRequest, write: Write) -> pb.LeaseCheckpointResponse:
        for checkpoint in request.checkpoints:
            self.lessor.note_remaining(checkpoint.ID, checkpoint.remaining_TTL)
        return pb.LeaseCheckpointResponse()

    def _alarm(self, request: pb.AlarmRequest, write: Write) -> pb.AlarmResponse:
        alarm = (request.memberID, request.alarm)
        before = alarm in self.alarms
        if request.action == pb.AlarmRequest.ACTIVATE:
            self.alarms.add(alarm)
            self.backend.set_fact(_alarm_fact(alarm), b"1")
        elif before:
            self.alarms.discard(alarm)
            self.backend.set_fact(_alarm_fact(alarm), b"")
        changed = before or request.action == pb.AlarmRequest.ACTIVATE
        return pb.AlarmResponse(alarms=[_alarm_member(alarm)] if changed else ())

    def alarm_members(self, member: int = 0, alarm: int = pb.NONE) -> list[pb.AlarmMember]:
        """The raised alarms; ``member`` 0 and ``alarm`` NONE stand for all."""
        return [
            _alarm_member(raised)
            for raised in sorted(self.alarms)
            if member in (0, raised[0]) and alarm in (pb.NONE, raised[1])
        ]

    def _check_healthy(self) -> None:
        if any(alarm == pb.CORRUPT for _, alarm in self.alarms):
            raise Corrupt("the members' data differ: find the wrong member, replace it, then disarm the alarm")

    def _check_space(self) -> None:
        if any(alarm == pb.NOSPACE for _, alarm in self.alarms):
            raise NoSpace("the space quota is exceeded: compact, delete, then disarm the alarm")


def has_put(txn: pb.TxnRequest) -> bool:
    """Whether any branch of the nest may put."""
    return any(
        op.HasField("request_put") or (op.HasField("request_txn") and has_put(op.request_txn))
        for ops in (txn.success, txn.failure)
        for op in ops
    )


def _alarm_member(alarm: tuple[int, Any]) -> pb.AlarmMember:
    return pb.AlarmMember(memberID=alarm[0], alarm=alarm[1])


def _alarm_fact(alarm: tuple[int, int]) -> bytes:
    return _FACT_ALARM + b"%x/%d" % alarm


def _alarm_of(name: bytes) -> tuple[int, int]:
    member, alarm = name.removeprefix(_FACT_ALARM).split(b"/")
    return int(member, 16), int(alarm)
