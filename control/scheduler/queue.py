"""Pods waiting for a node: highest priority first, then oldest. Pure: the clock is an argument.

A pod that found no node rests here until something changes that could help it (``wake``), but not before its back-off
is over: 1 s, doubling to 10 s, as Kubernetes' scheduler does. Every pod also gets another try every ``RETRY_AFTER_S``
in case a change was not recognised as help.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

BACKOFF_INITIAL_S = 1.0
BACKOFF_MAX_S = 10.0
RETRY_AFTER_S = 300.0


@dataclass
class Entry:
    """One waiting pod."""

    key: str
    priority: int
    added: float
    attempts: int = 0
    refused_by: frozenset[str] = field(default_factory=frozenset)
    ready_at: float = 0.0
    """No try before this time."""
    generation: int = 0


class Queue:
    """Active pods (a heap), resting pods (by key), and pods in their back-off (a heap of times)."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._active: list[tuple[int, float, str, int]] = []
        self._later: list[tuple[float, str, int]] = []
        self._resting: set[str] = set()
        self._in_hand: set[str] = set()
        self._missed: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def add(self, key: str, priority: int, now: float) -> None:
        """A pod without a node appeared or changed: try it now."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = Entry(key, priority, now)
        entry.priority = priority
        if key in self._in_hand:
            self._missed.setdefault(key, set()).add("*")
        else:
            self._activate(entry)

    def remove(self, key: str) -> None:
        """The pod is gone or has a node."""
        self._entries.pop(key, None)
        self._resting.discard(key)
        self._in_hand.discard(key)
        self._missed.pop(key, None)

    def pop(self, now: float) -> Entry | None:
        """The next pod to try, or None. It stays known until ``remove`` or ``rest``."""
        self._promote(now)
        while self._active:
            _, _, key, generation = heapq.heappop(self._active)
            entry = self._entries.get(key)
            if entry is not None and entry.generation == generation:
                self._in_hand.add(key)
                return entry
        return None

    def rest(self, key: str, refused_by: Iterable[str], now: float) -> None:
        """No node for the pod now. If something that could help changed during the try, it only waits its back-off."""
        entry = self._entries.get(key)
        if entry is None:
            return
        self._in_hand.discard(key)
        entry.attempts += 1
        entry.refused_by = frozenset(refused_by)
        entry.ready_at = now + min(BACKOFF_INITIAL_S * 2 ** (entry.attempts - 1), BACKOFF_MAX_S)
        missed = self._missed.pop(key, set())
        if _helps(missed, entry.refused_by):
            self._schedule(entry, entry.ready_at)
        else:
            self._resting.add(key)
            self._schedule(entry, now + RETRY_AFTER_S)

    def wake(self, causes: Iterable[str], now: float) -> None:
        """Something changed that the filters named in ``causes`` look at."""
        what = set(causes)
        for key in self._in_hand:
            self._missed.setdefault(key, set()).update(what)
        for key in [key for key in self._resting if _helps(what, self._entries[key].refused_by)]:
            entry = self._entries[key]
            self._resting.discard(key)
            if entry.ready_at <= now:
                self._activate(entry)
            else:
                self._schedule(entry, entry.ready_at)

    def next_at(self) -> float | None:
        """When ``pop`` may have something though nothing changed; None for never."""
        while self._later and not self._current(self._later[0][1], self._later[0][2]):
            heapq.heappop(self._later)
        return self._later[0][0] if self._later else None

    def _promote(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            _, key, generation = heapq.heappop(self._later)
            if self._current(key, generation):
                self._activate(self._entries[key])

    def _current(self, key: str, generation: int) -> bool:
        entry = self._entries.get(key)
        return entry is not None and entry.generation == generation

    def _activate(self, entry: Entry) -> None:
        self._resting.discard(entry.key)
        entry.generation += 1
        heapq.heappush(self._active, (-entry.priority, entry.added, entry.key, entry.generation))

    def _schedule(self, entry: Entry, at: float) -> None:
        entry.generation += 1
        heapq.heappush(self._later, (at, entry.key, entry.generation))


def _helps(causes: set[str], refused_by: frozenset[str]) -> bool:
    return "*" in causes or not refused_by or bool(causes & refused_by)
