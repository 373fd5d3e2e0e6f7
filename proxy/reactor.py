"""The event loop of the data path: epoll, timers, and a table from descriptor to handler.

Written for one thing, moving bytes between sockets with as little Python per event as possible; the control half of
the proxy runs on asyncio like every other service.
"""

import heapq
import itertools
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Any

Handler = Callable[[int], None]
"""Called with the epoll events of its descriptor. Events are hints: a handler must survive one that is out of date."""

EVENTS_PER_POLL = 512


class Timer:
    """A call that will be made once unless cancelled."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Make it never run. Harmless afterwards, too."""
        self.call = None


class Reactor:
    """epoll and timers. Single-threaded; everything is called from ``run``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.handlers: dict[int, Handler] = {}
        self._epoll = select.epoll()
        self._soon: deque[tuple[Callable[..., None], Any]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._running = False

    def add(self, fd: int, events: int, handler: Handler) -> None:
        """Watch ``fd``. Closing it takes it out of epoll by itself; ``forget`` then drops its handler."""
        self.handlers[fd] = handler
        self._epoll.register(fd, events)

    def modify(self, fd: int, events: int) -> None:
        """Change what ``fd`` is watched for."""
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Drop the handler of a descriptor that is about to be closed."""
        self.handlers.pop(fd, None)

    def call_soon(self, call: Callable[..., None], argument: Any) -> None:
        """Call after the events at hand, so that one busy connection does not starve the others."""
        self._soon.append((call, argument))

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Call once, ``delay_s`` seconds from now."""
        timer = Timer(call)
        heapq.heappush(self._timers, (self.clock() + delay_s, next(self._order), timer))
        return timer

    def run(self) -> None:
        """Run until ``stop``. What a handler raises ends the loop: a broken invariant must not be served on."""
        self._running = True
        handlers, poll, soon = self.handlers, self._epoll.poll, self._soon
        while self._running:
            for fd, events in poll(self._patience(), EVENTS_PER_POLL):
                handler = handlers.get(fd)
                if handler is not None:
                    handler(events)
            for _ in range(len(soon)):
                call, argument = soon.popleft()
                call(argument)
            if self._timers:
                self._run_timers()

    def stop(self) -> None:
        """Make ``run`` return after the events at hand."""
        self._running = False

    def close(self) -> None:
        """Close the epoll descriptor."""
        self._epoll.close()

    def _patience(self) -> float | None:
        if self._soon:
            return 0
        if self._timers:
            return max(0.0, self._timers[0][0] - self.clock())
        return None

    def _run_timers(self) -> None:
        now = self.clock()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if timer.call is not None:
                timer.call()
