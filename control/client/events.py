"""Events: what a component did to an object, for people to read. Recording never waits and never fails.

Equal events are counted on one object, as Kubernetes does, instead of stored again. The queue holds ``QUEUE_MAX``
events; when it is full the newest is dropped, because the first ones tell how trouble began.
"""

import asyncio
import copy
import logging
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any

from control.api import errors, times
from control.api.kinds import by_message
from control.client.client import Client
from protos.k8s import core_v1_pb2 as core

log = logging.getLogger(__name__)

QUEUE_MAX = 2000
REMEMBERED_MAX = 4096
NORMAL, WARNING = "Normal", "Warning"
MESSAGE_MAX = 1024

Identity = tuple[str, str, str, str]
"""(object uid or key, type, reason, message)"""


@dataclass(frozen=True)
class _Recorded:
    reference: core.ObjectReference
    type: str
    reason: str
    message: str
    at: float
    component: str

    @property
    def identity(self) -> Identity:
        """Events with equal identity are one event that happened again."""
        who = self.reference.uid or f"{self.reference.kind}/{self.reference.namespace}/{self.reference.name}"
        return (f"{who}#{self.reference.fieldPath}", self.type, self.reason, self.message)


def reference_to(obj: Any, field_path: str = "") -> core.ObjectReference:
    """A reference to ``obj``, or with ``field_path`` to a part of it (``spec.containers{web}``)."""
    kind, metadata = by_message(obj), obj.metadata
    reference = core.ObjectReference(
        kind=kind.kind,
        apiVersion=kind.api_version,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        resourceVersion=metadata.resourceVersion,
    )
    if field_path:
        reference.fieldPath = field_path
    return reference


class EventRecorder:
    """Records events of one component; ``run`` sends them. ``host`` is the node it speaks for, if any."""

    def __init__(self, client: Client, component: str, host: str = "") -> None:
        self._client, self._component, self._host = client, component, host
        self._queue: deque[_Recorded] = deque()
        self._wake = asyncio.Event()
        self._sent: OrderedDict[Identity, core.Event] = OrderedDict()
        self.dropped = 0

    def named(self, component: str) -> "EventRecorder":
        """The same recorder speaking for another component of this process."""
        other = copy.copy(self)
        other._component = component
        return other

    def normal(self, obj: Any, reason: str, message: str, field_path: str = "") -> None:
        """Something went as it should."""
        self.record(reference_to(obj, field_path), NORMAL, reason, message)

    def warning(self, obj: Any, reason: str, message: str, field_path: str = "") -> None:
        """Something did not, and someone may want to know."""
        self.record(reference_to(obj, field_path), WARNING, reason, message)

    def record(self, reference: core.ObjectReference, type_: str, reason: str, message: str) -> None:
        """Queue an event."""
        if len(self._queue) >= QUEUE_MAX:
            self.dropped += 1
            return
        self._queue.append(_Recorded(reference, type_, reason, message[:MESSAGE_MAX], time.time(), self._component))
        self._wake.set()

    async def run(self) -> None:
        """Send events until cancelled, then what is still queued, briefly."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    await self._send(self._queue.popleft())
        finally:
            await self._drain()

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(1.0):
                while self._queue:
                    await self._send(self._queue.popleft())
        except TimeoutError:
            log.debug("events left unsent", extra={"count": len(self._queue)})

    async def _send(self, recorded: _Recorded) -> None:
        known = self._sent.get(recorded.identity)
        try:
            event = await (self._again(known, recorded) if known is not None else self._first(recorded))
        except errors.ApiError as err:
            self._sent.pop(recorded.identity, None)
            log.debug("event not recorded", extra={"reason": recorded.reason, "cause": err.message})
            return
        self._sent[recorded.identity] = event
        self._sent.move_to_end(recorded.identity)
        while len(self._sent) > REMEMBERED_MAX:
            self._sent.popitem(last=False)

    async def _first(self, recorded: _Recorded) -> core.Event:
        reference = recorded.reference
        event = core.Event(
            involvedObject=reference, type=recorded.type, reason=recorded.reason, message=recorded.message, count=1
        )
        event.metadata.namespace = reference.namespace or "default"
        event.metadata.name = f"{reference.name}.{int(recorded.at * 1e9):x}"
        event.source.component = event.reportingComponent = recorded.component
        if self._host:
            event.source.host = event.reportingInstance = self._host
        event.firstTimestamp.seconds = event.lastTimestamp.seconds = int(recorded.at)
        return await self._client.create(event)

    async def _again(self, known: core.Event, recorded: _Recorded) -> core.Event:
        again = {"count": known.count + 1, "lastTimestamp": times.format_seconds(int(recorded.at))}
        try:
            return await self._client.patch(
                core.Event, known.metadata.name, again, namespace=known.metadata.namespace, patch_type="merge"
            )
        except errors.NotFound:
            return await self._first(recorded)
