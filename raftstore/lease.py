"""Leases: the replicated part, which every member keeps alike, and the leader's clock for them.

``Lessor`` changes only by applied log entries. ``Deadlines`` is local to the leader: it knows when each lease ends, is
told the time, and never ends a lease early: a new leader grants every lease its full TTL again.
"""

import heapq
from dataclasses import dataclass, field

from protos.etcd.rpc_pb2 import LeaseCheckpoint
from raftstore.errors import LeaseExists, LeaseNotFound
from raftstore.limits import LEASE_CHECKPOINT_INTERVAL_S
from raftstore.mvcc.backend import Backend
from raftstore.mvcc.store import Store, Write

_FACT = b"lease/"


@dataclass
class Lease:
    """A granted lease."""

    id: int
    ttl_s: int
    remaining_s: int = 0
    """What a checkpoint said was left, where a new leader goes on; 0: all of it."""
    keys: set[bytes] = field(default_factory=set)


class Lessor:
    """All leases and the keys attached to them."""

    def __init__(self, backend: Backend, store: Store) -> None:
        """Load the leases, and their keys from the live pairs of ``store``."""
        self._backend = backend
        self.leases: dict[int, Lease] = {}
        self._lease_of: dict[bytes, int] = {}
        for name, value in backend.stored_facts(_FACT).items():
            id = int(name.removeprefix(_FACT), 16)
            ttl_s, *remaining_s = map(int, value.split())
            self.leases[id] = Lease(id, ttl_s, remaining_s[0] if remaining_s else 0)
        if self.leases:
            for kv in store.live():
                self.attach(kv.key, kv.lease)

    def exists(self, lease: int) -> bool:
        """Whether the lease is granted."""
        return lease in self.leases

    def get(self, id: int) -> Lease:
        """The lease. Raises LeaseNotFound."""
        found = self.leases.get(id)
        if found is None:
            raise LeaseNotFound(f"lease {id:x} does not exist")
        return found

    def grant(self, id: int, ttl_s: int) -> Lease:
        """Add a lease. Raises LeaseExists."""
        if id in self.leases:
            raise LeaseExists(f"lease {id:x} exists")
        lease = self.leases[id] = Lease(id, ttl_s)
        self._backend.set_fact(_fact(id), b"%d" % ttl_s)
        return lease

    def note_remaining(self, id: int, remaining_s: int) -> None:
        """Remember what is left of a lease (0: all); an unknown lease was revoked meanwhile."""
        lease = self.leases.get(id)
        if lease is not None:
            lease.remaining_s = remaining_s
            self._backend.set_fact(_fact(id), b"%d %d" % (lease.ttl_s, remaining_s))

    def revoke(self, id: int, write: Write) -> None:
        """Remove a lease and delete its keys in key order. Raises LeaseNotFound."""
        lease = self.get(id)
        for key in sorted(lease.keys):
            write.delete_range(key, b"")
            del self._lease_of[key]
        del self.leases[id]
        self._backend.set_fact(_fact(id), b"")

    def attach(self, key: bytes, lease: int) -> None:
        """Tie ``key`` to ``lease`` (0: to none) instead of its former lease."""
        former = self._lease_of.pop(key, 0)
        if former:
            self.leases[former].keys.discard(key)
        if lease and lease in self.leases:
            self.leases[lease].keys.add(key)
            self._lease_of[key] = lease


def _fact(id: int) -> bytes:
    return _FACT + b"%016x" % id


class Deadlines:
    """When leases end, by a clock in seconds that the caller reads."""

    def __init__(self) -> None:
        self._ends: dict[int, float] = {}
        # Entries that no longer agree with _ends are stale and skipped.
        self._heap: list[tuple[float, int]] = []

    def renew(self, id: int, ttl_s: float, now: float) -> None:
        """Let the lease live ``ttl_s`` from ``now``."""
        self._ends[id] = now + ttl_s
        heapq.heappush(self._heap, (now + ttl_s, id))
        if len(self._heap) > 2 * len(self._ends) + 64:
            self._heap = [(end, lease) for lease, end in self._ends.items()]
            heapq.heapify(self._heap)

    def forget(self, id: int) -> None:
        """The lease is gone."""
        self._ends.pop(id, None)

    def clear(self) -> None:
        """This member leads no more."""
        self._ends.clear()
        self._heap.clear()

    def remaining_s(self, id: int, now: float) -> float:
        """Seconds the lease has left; negative when it ended. Raises LeaseNotFound."""
        if id not in self._ends:
            raise LeaseNotFound(f"lease {id:x} does not exist")
        return self._ends[id] - now

    def expired(self, now: float) -> list[int]:
        """Leases whose time is over, each reported once."""
        over = []
        while self._heap and self._heap[0][0] <= now:
            end, id = heapq.heappop(self._heap)
            if self._ends.get(id) == end:
                over.append(id)
        return over

    def next_end(self) -> float | None:
        """The earliest time at which ``expired`` may return something."""
        while self._heap and self._ends.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def by_end(self) -> list[int]:
        """Lease ids, the soonest to end first."""
        return sorted(self._ends, key=lambda id: (self._ends[id], id))


def due_checkpoints(lessor: Lessor, deadlines: Deadlines, now: float) -> list[LeaseCheckpoint]:
    """What is left, in whole seconds, of the leases that live long enough for it to matter."""
    due = []
    for lease in lessor.leases.values():
        if lease.ttl_s > LEASE_CHECKPOINT_INTERVAL_S:
            try:
                remaining_s = int(deadlines.remaining_s(lease.id, now))
            except LeaseNotFound:
                continue  # this member is not the leader
            if remaining_s > 0:
                due.append(LeaseCheckpoint(ID=lease.id, remaining_TTL=remaining_s))
    return due
