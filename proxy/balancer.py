"""Which backend gets the next connection: pure, no sockets, no clock of its own, no global randomness.

The rules, in the order in which they are applied:

1. A backend that was removed is *draining*: it keeps its live connections and gets no new ones.
2. A client that has affinity goes back to its backend, unless that is draining or this very connection failed on it.
3. A backend that refused a connection a moment ago is *suspect*: chosen only when nothing better is left.
4. The policy decides among the rest.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from enum import StrEnum
from random import Random
from typing import NamedTuple

SUSPECT_S = 1.0
"""How long a backend that refused a connection is avoided, seconds. Short: its endpoint soon says so if it is ill."""

AFFINITY_CLIENTS_MAX = 65_536
"""Clients remembered per listener; beyond it the one heard longest ago is forgotten. Bounds memory under a scan."""


class Policy(StrEnum):
    """How one of several equally good backends is chosen."""

    ROUND_ROBIN = "round-robin"
    RANDOM = "random"
    LEAST_CONNECTIONS = "least-connections"  # of two chosen at random: near the best of all, at constant cost


class Backend(NamedTuple):
    """Where connections go: an address of a pod. (A dataclass would cost the data plane's process two megabytes.)"""

    address: str
    port: int
    pod: str = ""
    node: str = ""


class Slot:
    """A backend and what the balancer knows about it."""

    __slots__ = ("backend", "draining", "open", "suspect_until", "total")

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.open = 0
        self.total = 0
        self.draining = False
        self.suspect_until = 0.0


class Balancer:
    """Chooses backends for one listener."""

    def __init__(
        self, clock: Callable[[], float], rng: Random, policy: Policy = Policy.ROUND_ROBIN, affinity_s: float = 0
    ) -> None:
        """``affinity_s``: how long a silent client keeps its backend, seconds; 0 is no affinity (Service
        ``sessionAffinityConfig.clientIP.timeoutSeconds``)."""
        self.policy = policy
        self.affinity_s = affinity_s
        self._clock = clock
        self._rng = rng
        self._slots: dict[tuple[str, int], Slot] = {}
        self._active: list[Slot] = []
        self._turn = 0
        self._clients: OrderedDict[str, tuple[Slot, float]] = (
            OrderedDict()
        )  # client -> backend, last heard; oldest first

    def update(self, backends: Sequence[Backend]) -> None:
        """Make ``backends`` the ones that get new connections; all others drain."""
        wanted = {(backend.address, backend.port): backend for backend in backends}
        for key, slot in list(self._slots.items()):
            slot.draining = key not in wanted
            if slot.draining and not slot.open:
                del self._slots[key]
        for key, backend in wanted.items():
            self._slots.setdefault(key, Slot(backend)).backend = backend
        first = not self._active
        self._active = [self._slots[key] for key in wanted]
        if first and self._active:  # so that the proxies of many nodes do not all begin with the same pod
            self._turn = self._rng.randrange(len(self._active))

    def slots(self) -> list[Slot]:
        """Every backend, draining ones included."""
        return list(self._slots.values())

    def pick(self, client: str, tried: Collection[Slot] = ()) -> Slot | None:
        """The backend for a new connection from ``client``, none of ``tried``; None when there is no other.

        The connection is counted as open: the caller owes one ``closed`` or ``failed``.
        """
        slot = self._remembered(client, tried) if self.affinity_s else None
        slot = slot or self._choose(tried)
        if slot is None:
            return None
        if self.affinity_s:
            self._remember(client, slot)
        slot.open += 1
        slot.total += 1
        return slot

    def closed(self, slot: Slot) -> None:
        """A connection to ``slot`` ended."""
        slot.open -= 1
        backend = slot.backend
        if slot.draining and not slot.open and self._slots.get((backend.address, backend.port)) is slot:
            del self._slots[(backend.address, backend.port)]

    def failed(self, slot: Slot) -> None:
        """A connection to ``slot`` could not be made: avoid it for a moment."""
        slot.total -= 1
        slot.suspect_until = self._clock() + SUSPECT_S
        self.closed(slot)

    def _remembered(self, client: str, tried: Collection[Slot]) -> Slot | None:
        slot, heard = self._clients.get(client, (None, 0.0))
        if slot is None or slot.draining or slot in tried or self._clock() - heard > self.affinity_s:
            return None
        return slot

    def _remember(self, client: str, slot: Slot) -> None:
        now = self._clock()
        self._clients[client] = (slot, now)
        self._clients.move_to_end(client)
        while self._clients:
            oldest, (_, heard) = next(iter(self._clients.items()))
            if len(self._clients) <= AFFINITY_CLIENTS_MAX and now - heard <= self.affinity_s:
                break
            del self._clients[oldest]

    def _choose(self, tried: Collection[Slot]) -> Slot | None:
        active = self._active
        if self.policy is Policy.ROUND_ROBIN:
            return self._next_in_turn(tried)
        candidates = [slot for slot in active if slot not in tried] if tried else active
        if not candidates:
            return None
        now = self._clock()
        healthy = [slot for slot in candidates if slot.suspect_until <= now] or candidates
        if self.policy is Policy.RANDOM or len(healthy) == 1:
            return healthy[self._rng.randrange(len(healthy))]
        one, other = self._rng.sample(healthy, 2)
        return other if other.open < one.open else one

    def _next_in_turn(self, tried: Collection[Slot]) -> Slot | None:
        """The next backend in order, at the cost of looking at one when all are well."""
        active = self._active
        now = self._clock()
        fallback = None
        for _ in range(len(active)):
            self._turn = (self._turn + 1) % len(active)
            slot = active[self._turn]
            if slot in tried:
                continue
            if slot.suspect_until <= now:
                return slot
            fallback = fallback or slot
        return fallback
