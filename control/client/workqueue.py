"""A queue of keys to reconcile. Four promises: keys come in order of arrival; a key queued twice comes once; a key is
never in two hands at a time; a key added while in hand comes again afterwards.

Source: client-go util/workqueue. *dirty*: must be processed. *processing*: someone has it.
"""

import asyncio
from collections import deque

BASE_DELAY_S, MAX_DELAY_S = 0.005, 60.0
"""Delay after a key's first failure, and the longest, seconds; it doubles per failure."""


class WorkQueue:
    """``key = await q.get()``, work, ``q.done(key)``; after a failure ``q.add_rate_limited(key)``, after a success
    ``q.forget(key)``. Unbounded, but never longer than the number of distinct keys."""

    def __init__(self, base_delay_s: float = BASE_DELAY_S, max_delay_s: float = MAX_DELAY_S) -> None:
        self._base_delay_s, self._max_delay_s = base_delay_s, max_delay_s
        self._queue: deque[str] = deque()
        self._dirty: set[str] = set()
        self._processing: set[str] = set()
        self._failures: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._available = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, key: str) -> None:
        """Ask for ``key`` to be processed, now or, if it is in hand, afterwards."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._processing:
            self._push(key)

    def add_after(self, key: str, delay_s: float) -> None:
        """Add ``key`` after a delay in seconds; of several delays the earliest counts."""
        if delay_s <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        waiting = self._timers.get(key)
        if waiting is not None and waiting.when() <= loop.time() + delay_s:
            return
        if waiting is not None:
            waiting.cancel()
        self._timers[key] = loop.call_later(delay_s, self._due, key)

    def add_rate_limited(self, key: str) -> None:
        """Add ``key`` after a delay that doubles with each call until ``forget``."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.add_after(key, min(self._base_delay_s * 2 ** min(failures, 60), self._max_delay_s))

    def failures(self, key: str) -> int:
        """How many times ``key`` was rate limited since it was forgotten."""
        return self._failures.get(key, 0)

    def forget(self, key: str) -> None:
        """Start over with the delays of ``key``."""
        self._failures.pop(key, None)

    async def get(self) -> str:
        """The next key; it is the caller's until ``done``."""
        while not self._queue:
            self._available.clear()
            await self._available.wait()
        key = self._queue.popleft()
        self._dirty.discard(key)
        self._processing.add(key)
        return key

    def done(self, key: str) -> None:
        """Give ``key`` back; it comes again if it was added meanwhile."""
        self._processing.discard(key)
        if key in self._dirty:
            self._push(key)

    def _due(self, key: str) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _push(self, key: str) -> None:
        self._queue.append(key)
        self._available.set()
