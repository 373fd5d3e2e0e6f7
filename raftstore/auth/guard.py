"""What each request needs, asked on behalf of an identity. Raises what AuthStore's checks raise.

While authentication is off everything is allowed, and for the cluster's own requests always.
"""

from collections.abc import Callable
from typing import Any

from protos.etcd import rpc_pb2 as pb
from raftstore.auth.identity import CLUSTER, Identity
from raftstore.auth.store import AuthStore
from raftstore.command import Kind
from raftstore.errors import EtcdError
from raftstore.lease import Lease, Lessor


class Guard:
    """The checks, over the users and the leases."""

    def __init__(self, auth: AuthStore, lessor: Lessor) -> None:
        self._auth = auth
        self._lessor = lessor
        self._by_kind: dict[Kind, Callable[[Identity, Any], None]] = {
            Kind.PUT: self.check_put,
            Kind.DELETE_RANGE: self.check_delete,
            Kind.TXN: self.check_txn,
            Kind.COMPACT: self._check_admin,
            Kind.LEASE_GRANT: self._check_known,
            Kind.LEASE_REVOKE: lambda who, request: self.check_lease_write(who, request.ID),
            Kind.ALARM: self._check_admin,
            Kind.AUTHENTICATE: lambda who, request: None,
        }

    def check_command(self, who: Identity, kind: Kind, request: Any) -> None:
        """Whether ``who`` may have the command applied. Changes of users and roles need root."""
        if self._auth.enabled and who != CLUSTER:
            self._by_kind.get(kind, self._check_admin)(who, request)

    def check_range(self, who: Identity, request: pb.RangeRequest) -> None:
        """Reading a range."""
        if self._auth.enabled:
            self._auth.check_read(who, request.key, request.range_end)

    def check_put(self, who: Identity, request: pb.PutRequest) -> None:
        """Writing a key. With a lease: the keys it holds already, since ending it would delete them too."""
        self._auth.check_write(who, request.key)
        self.check_lease_write(who, request.lease)
        if request.prev_kv:
            self._auth.check_read(who, request.key)

    def check_delete(self, who: Identity, request: pb.DeleteRangeRequest) -> None:
        """Deleting a range."""
        self._auth.check_write(who, request.key, request.range_end)
        if request.prev_kv:
            self._auth.check_read(who, request.key, request.range_end)

    def check_txn(self, who: Identity, request: pb.TxnRequest) -> None:
        """Every compare and every operation of both branches, whichever will run."""
        for compare in request.compare:
            self._auth.check_read(who, compare.key, compare.range_end)
        for ops in (request.success, request.failure):
            for op in ops:
                self._check_op(who, op)

    def _check_op(self, who: Identity, op: pb.RequestOp) -> None:
        match op.WhichOneof("request"):
            case "request_range":
                self.check_range(who, op.request_range)
            case "request_put":
                self.check_put(who, op.request_put)
            case "request_delete_range":
                self.check_delete(who, op.request_delete_range)
            case "request_txn":
                self.check_txn(who, op.request_txn)

    def check_lease_write(self, who: Identity, id: int) -> None:
        """Renewing or ending a lease: writing all its keys."""
        self._each_key(who, self._lessor.leases.get(id), self._auth.check_write)

    def check_lease_read(self, who: Identity, id: int) -> None:
        """Seeing a lease's keys: reading them."""
        self._each_key(who, self._lessor.leases.get(id), self._auth.check_read)

    def check_leases_read(self, who: Identity) -> None:
        """Seeing all leases."""
        self._auth.check_known(who)
        if self._auth.enabled and not self._may_everything(who):
            for lease in self._lessor.leases.values():
                self._each_key(who, lease, self._auth.check_read)

    def _each_key(self, who: Identity, lease: Lease | None, check: Callable[[Identity, bytes], None]) -> None:
        if self._auth.enabled and lease is not None and not self._may_everything(who):
            for key in lease.keys:
                check(who, key)

    def _may_everything(self, who: Identity) -> bool:
        try:
            self._auth.check_admin(who)
        except EtcdError:
            return False
        return True

    def _check_admin(self, who: Identity, request: Any) -> None:
        self._auth.check_admin(who)

    def _check_known(self, who: Identity, request: Any) -> None:
        self._auth.check_known(who)
