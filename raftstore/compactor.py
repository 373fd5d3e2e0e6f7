"""When to forget history by itself. Pure: told the time and the revision, it says what to compact.

``--auto-compaction-mode periodic --auto-compaction-retention 1h`` keeps an hour of history, ``revision`` with a number
keeps that many revisions; retention 0 keeps all.
"""

from collections import deque
from typing import Protocol

_SAMPLES = 10  # of one period
_PERIOD_S_MAX = 3600.0
_REVISION_INTERVAL_S = 300.0


class Policy(Protocol):
    """A rule of forgetting."""

    interval_s: float
    """How often it wants to be asked."""

    def due(self, now: float, revision: int) -> int:
        """The revision to compact now; 0 for none."""


class Periodic:
    """Keep what is younger than ``retention_s``."""

    def __init__(self, retention_s: float) -> None:
        self._retention_s = retention_s
        self._period_s = min(retention_s, _PERIOD_S_MAX)
        self.interval_s = self._period_s / _SAMPLES
        self._samples: deque[tuple[float, int]] = deque()
        self._last_at = float("-inf")
        self._last = 0

    def due(self, now: float, revision: int) -> int:
        """See Policy. The revision is the newest that was current ``retention_s`` ago."""
        self._samples.append((now, revision))
        old = 0
        while self._samples and self._samples[0][0] <= now - self._retention_s:
            old = self._samples.popleft()[1]
        if old:
            self._samples.appendleft((now - self._retention_s, old))
        if old <= max(self._last, 1) or now - self._last_at < self._period_s - self.interval_s / 2:
            return 0
        self._last_at, self._last = now, old
        return old


class ByRevision:
    """Keep the newest ``retention`` revisions."""

    def __init__(self, retention: int, interval_s: float = _REVISION_INTERVAL_S) -> None:
        self._retention = retention
        self.interval_s = interval_s
        self._last = 0

    def due(self, now: float, revision: int) -> int:
        """See Policy."""
        old = revision - self._retention
        if old <= max(self._last, 1):
            return 0
        self._last = old
        return old
