"""Lifecycle events to every subscriber; nobody waits for a slow one."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import IntEnum

QUEUE_MAX = 4096
"""Events a subscriber may lag behind; then it is cut off, and lists again."""


class Kind(IntEnum):
    """CRI's ContainerEventType."""

    CREATED = 0
    STARTED = 1
    STOPPED = 2
    DELETED = 3


@dataclass(frozen=True)
class Event:
    """Something happened to container or sandbox ``id`` of ``sandbox_id``."""

    id: str
    sandbox_id: str
    kind: Kind
    at: int = field(default_factory=time.time_ns)


class Lagging(Exception):
    """The subscriber did not read for 4096 events."""


class Events:
    """Publishes to all who listen at that moment."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[Event | None]] = set()

    def publish(self, id: str, sandbox_id: str, kind: Kind) -> None:
        """Tell everyone."""
        event = Event(id, sandbox_id, kind)
        for queue in list(self._queues):
            if queue.qsize() >= QUEUE_MAX:
                self._queues.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)

    async def subscribe(self) -> AsyncIterator[Event]:
        """Events from now on. Raises Lagging."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._queues.add(queue)
        try:
            while (event := await queue.get()) is not None:
                yield event
            raise Lagging("more than 4096 events waited: subscribe again, and list first")
        finally:
            self._queues.discard(queue)
