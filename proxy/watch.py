"""From the cluster's objects to listeners: informers in, ``DataPlane.replace`` out, one service at a time.

Level-triggered: an event only names the service to look at again. While the apiserver is away the last known state
stays in force; the informers come back by themselves and tell only what differs.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from control.api import meta
from control.client import Client, Informer
from protos.k8s.core_v1_pb2 import Endpoints, Service
from protos.k8s.discovery_v1_pb2 import EndpointSlice
from proxy.dataplane import DataPlane
from proxy.services import plan_listeners, service_of

log = logging.getLogger(__name__)

TURN = 100
"""Services planned before other tasks get their turn."""


class ServiceWatch:
    """Keeps a data plane in step with the apiserver."""

    def __init__(self, client: Client, plane: DataPlane, node: str) -> None:
        self._plane = plane
        self._node = node
        self._services = Informer(client, Service)
        self._slices = Informer(client, EndpointSlice)
        self._endpoints = Informer(client, Endpoints)
        self._slices.add_index("service", lambda each: [service_of(each)])
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()

    async def run(self, ready: asyncio.Event) -> None:
        """Work until cancelled. ``ready`` is set when all that the apiserver has is listened for."""
        informers = (self._services, self._slices, self._endpoints)
        self._services.add_handler(lambda old, new: self._mark(old, new, meta.key))
        self._slices.add_handler(lambda old, new: self._mark(old, new, service_of))
        self._endpoints.add_handler(lambda old, new: self._mark(old, new, meta.key))
        async with asyncio.TaskGroup() as tasks:
            for informer in informers:
                tasks.create_task(informer.run(), name="informer")
            for informer in informers:
                await informer.synced()
            self._wake.set()
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._step()
                ready.set()

    def _mark(self, old: Any, new: Any, key_of: Callable[[Any], str]) -> None:
        self._dirty.update(key_of(each) for each in (old, new) if each is not None)
        self._wake.set()

    async def _step(self) -> None:
        dirty, self._dirty = sorted(self._dirty), set()
        for count, key in enumerate(dirty, 1):
            service = self._services.get(key)
            listeners = []
            if service is not None:
                slices = self._slices.by_index("service", key)
                listeners = plan_listeners(service, slices, self._endpoints.get(key), self._node)
            self._plane.replace(key, listeners)
            if count % TURN == 0:
                await asyncio.sleep(0)
