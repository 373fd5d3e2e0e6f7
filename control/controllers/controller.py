"""The machinery under every controller: shared informers, a queue of keys, workers that retry.

A controller is level-triggered: ``sync(key)`` is told that *something* about an object may have changed, looks at
what is there now and does what is missing. It may be called at any time and as often as one likes; for one key never
twice at once.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from google.protobuf.message import Message

from control.api import meta
from control.api.selectors import from_labels
from control.client import Client, Informer, WorkQueue, errors
from control.client.events import EventRecorder
from protos.k8s import core_v1_pb2 as core

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Message)

WORKERS = 4
RETRIES_BEFORE_WARNING = 5


class Environment:
    """What all controllers of a process share: client, informers (one per kind), event recorder, clock."""

    def __init__(self, client: Client, component: str = "controllers", now: Callable[[], float] = time.time) -> None:
        self.client = client
        self.recorder = EventRecorder(client, component)
        self.now = now
        self._informers: dict[type[Message], Informer[Any]] = {}

    def informer(self, cls: type[T]) -> Informer[T]:
        """The shared informer of a kind; every kind asked for runs as long as the environment. All have index
        "namespace".
        """
        if cls not in self._informers:
            self._informers[cls] = Informer(self.client, cls)
            self._informers[cls].add_index("namespace", lambda obj: [obj.metadata.namespace])
        return self._informers[cls]

    def in_namespace(self, cls: type[T], namespace: str) -> list[T]:
        """The objects of a kind in a namespace."""
        return cast(list[T], self.informer(cls).by_index("namespace", namespace))

    def pods_in(self, namespace: str) -> list[core.Pod]:
        """The pods of a namespace."""
        return self.in_namespace(core.Pod, namespace)

    def services_of_pods(self, add: Callable[[str], None]) -> Callable[[core.Pod | None, core.Pod | None], None]:
        """A pod handler that calls ``add`` with the key of every service that selects the pod, before or after."""

        def changed(old: core.Pod | None, new: core.Pod | None) -> None:
            seen = [pod for pod in (old, new) if pod is not None]
            for service in self.in_namespace(core.Service, seen[0].metadata.namespace):
                selector = from_labels(service.spec.selector)
                if any(selector.matches(pod.metadata.labels) for pod in seen):
                    add(meta.key(service))

        return changed

    async def run(self) -> None:
        """Run informers and recorder until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.recorder.run(), name="events")
            for cls, informer in self._informers.items():
                tasks.create_task(informer.run(), name=f"informer-{cls.__name__}")

    async def synced(self) -> None:
        """Wait until every informer has its first list."""
        for informer in self._informers.values():
            await informer.synced()


class Controller:
    """Base of all controllers: subclasses set ``name``, subscribe in ``__init__`` and write ``sync``."""

    name = "controller"
    workers = WORKERS

    def __init__(self, env: Environment) -> None:
        self.env, self.client = env, env.client
        self.recorder = env.recorder.named(f"{self.name}-controller")
        self.queue = WorkQueue()

    async def sync(self, key: str) -> None:
        """Make the world what the object ``key`` wants. Raises ApiError to be called again after a back-off."""
        raise NotImplementedError

    def enqueue_either(self, old: Any, new: Any) -> None:
        """An informer handler: the object itself changed."""
        self.queue.add(meta.key(new if new is not None else old))

    async def run(self) -> None:
        """Work the queue until cancelled. The environment must run beside it."""
        await self.env.synced()
        async with asyncio.TaskGroup() as tasks:
            for number in range(self.workers):
                tasks.create_task(self._work(), name=f"{self.name}-{number}")

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                await self.sync(key)
                self.queue.forget(key)
            except errors.ApiError as err:
                self._retry(key, err)
            finally:
                self.queue.done(key)

    def _retry(self, key: str, err: errors.ApiError) -> None:
        persistent = self.queue.failures(key) >= RETRIES_BEFORE_WARNING and not isinstance(err, errors.Unavailable)
        log.log(
            logging.WARNING if persistent else logging.DEBUG,
            "sync failed, will retry",
            extra={"controller": self.name, "key": key, "cause": err.message},
        )
        self.queue.add_rate_limited(key)
