"""What a controller has asked for and not yet seen: while an expectation is open, its cache is known to be stale. Pure.

Without it a controller that creates three pods and looks again before the watch has brought them creates three more.
Creations are counted (a pod may come and go before anyone looks), deletions are remembered by uid (a pod is deleted
once). An expectation that is not met in ``TIMEOUT_S`` is given up: a missed event must not stop a controller for
good.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

TIMEOUT_S = 300.0


@dataclass
class _Open:
    creations: int = 0
    deletions: set[str] = field(default_factory=set)
    since: float = 0.0


class Expectations:
    """Open expectations by the key of the object that owns the pods."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}

    def expect(self, key: str, creations: int, deletions: Iterable[str], now: float) -> None:
        """Before asking: so many creations, and the deletion of these uids, will be seen."""
        entry = self._open.setdefault(key, _Open())
        entry.creations += creations
        entry.deletions.update(deletions)
        entry.since = now

    def created(self, key: str, count: int = 1) -> None:
        """A creation was seen, or will never be."""
        entry = self._open.get(key)
        if entry is not None:
            entry.creations = max(0, entry.creations - count)

    def deleted(self, key: str, uid: str) -> None:
        """A deletion was seen, or will never be."""
        entry = self._open.get(key)
        if entry is not None:
            entry.deletions.discard(uid)

    def met(self, key: str, now: float) -> bool:
        """True if nothing is outstanding, so that the cache can be believed."""
        entry = self._open.get(key)
        return entry is None or (not entry.creations and not entry.deletions) or now - entry.since > TIMEOUT_S

    def forget(self, key: str) -> None:
        """The owner is gone."""
        self._open.pop(key, None)
