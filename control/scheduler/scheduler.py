"""The scheduler's loop: informers in, one decision after the other, bindings out.

Decisions are serial, because each depends on the one before (a pod that was just placed takes room: it is *assumed*);
the binding writes that follow run concurrently, so their latency does not limit the rate.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from control.api import meta
from control.client import Client, Informer, errors
from control.client.events import EventRecorder
from control.scheduler.cache import Cache, is_over, record_of
from control.scheduler.decision import Decision, decide
from control.scheduler.filters import FILTERS
from control.scheduler.queue import Queue
from protos.k8s import core_v1_pb2 as core

log = logging.getLogger(__name__)

NAME = "default-scheduler"
BINDINGS_MAX = 64
"""Bindings in flight at once; further decisions wait."""

ROOM_FREED = ("fit", "ports")
"""The filters that a pod's departure can help with."""

NODE_CAUSES = tuple(check.__name__ for check in FILTERS)


class Scheduler:
    """Places pods whose spec.schedulerName is ours."""

    def __init__(self, client: Client, name: str = NAME, now: Callable[[], float] = time.time) -> None:
        self.client, self.name, self.now = client, name, now
        self.cache, self.queue = Cache(), Queue()
        self.recorder = EventRecorder(client, name)
        self.pods: Informer[core.Pod] = Informer(client, core.Pod)
        self.nodes: Informer[core.Node] = Informer(client, core.Node)
        self.pods.add_handler(self._pod_changed)
        self.nodes.add_handler(self._node_changed)
        self._changed = asyncio.Event()
        self._first = 0
        self._slots = asyncio.Semaphore(BINDINGS_MAX)

    async def run(self) -> None:
        """Schedule until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.recorder.run(), name="events")
            tasks.create_task(self.nodes.run(), name="informer-nodes")
            tasks.create_task(self.pods.run(), name="informer-pods")
            await self.nodes.synced()
            await self.pods.synced()
            log.info("scheduling", extra={"nodes": len(self.nodes.list()), "pods": len(self.pods.list())})
            await self._schedule(tasks)

    async def _schedule(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            self._changed.clear()
            entry = self.queue.pop(self.now())
            if entry is None:
                await self._idle()
                continue
            pod = self.pods.get(entry.key)
            if pod is None or not self._wants_node(pod):
                self.queue.remove(entry.key)
                continue
            await self._place(pod, tasks)
            # Let informers and bindings run: a thousand waiting pods must not starve them.
            await asyncio.sleep(0)

    async def _idle(self) -> None:
        due = self.queue.next_at()
        try:
            async with asyncio.timeout(None if due is None else max(0.0, due - self.now())):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _place(self, pod: core.Pod, tasks: asyncio.TaskGroup) -> None:
        record = record_of(pod)
        nodes = self.cache.nodes()
        decision = decide(pod, record, nodes, self._first)
        self._first = (self._first + decision.asked) % max(len(nodes), 1)
        if decision.node is None:
            self._refuse(pod, decision, tasks)
            return
        self.cache.assume(record_of(pod, decision.node))
        await self._slots.acquire()
        tasks.create_task(self._bind(pod, decision.node), name=f"bind-{record.key}")

    def _refuse(self, pod: core.Pod, decision: Decision, tasks: asyncio.TaskGroup) -> None:
        key = meta.key(pod)
        self.queue.rest(key, decision.refused_by, self.now())
        self.recorder.warning(pod, "FailedScheduling", decision.message)
        log.info("no node fits", extra={"pod": key, "reason": decision.message})
        condition = meta.find_condition(pod.status.conditions, "PodScheduled")
        if condition is None or condition.message != decision.message:
            tasks.create_task(self._write_condition(pod, decision.message), name=f"condition-{key}")

    async def _write_condition(self, pod: core.Pod, message: str) -> None:
        """Report in the pod's status why it waits; runs beside the next decision."""
        changed: core.Pod = meta.copy_of(pod)
        meta.set_condition(changed.status.conditions, "PodScheduled", "False", "Unschedulable", message)
        try:
            await self.client.update_status(changed)
        except errors.ApiError as err:
            log.debug("condition not written", extra={"pod": meta.key(pod), "cause": err.message})

    async def _bind(self, pod: core.Pod, node: str) -> None:
        key = meta.key(pod)
        try:
            await self.client.bind(pod.metadata.namespace, pod.metadata.name, node, uid=pod.metadata.uid)
        except errors.ApiError as err:
            self._binding_failed(pod, key, err)
        else:
            self.queue.remove(key)
            self.recorder.normal(pod, "Scheduled", f"Successfully assigned {key} to {node}")
            log.debug("bound", extra={"pod": key, "node": node})
        finally:
            self._slots.release()

    def _binding_failed(self, pod: core.Pod, key: str, err: errors.ApiError) -> None:
        log.warning("binding failed", extra={"pod": key, "cause": err.message})
        self.cache.unassume(key)
        self.queue.rest(key, (), self.now())
        self._wake("*")
        if not isinstance(err, errors.NotFound | errors.Unavailable):
            self.recorder.warning(pod, "FailedScheduling", f"binding rejected: {err.message}")

    # -- hearing -------------------------------------------------------------------------------------------------

    def _wants_node(self, pod: core.Pod) -> bool:
        ours = (pod.spec.schedulerName or NAME) == self.name
        waiting = not pod.spec.nodeName and not meta.is_deleting(pod) and not is_over(pod)
        return ours and waiting and not pod.spec.schedulingGates

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        key = meta.key(new if new is not None else old)
        if new is not None and self._wants_node(new):
            if old is None or not _same_spec(old, new) or key not in self.queue:
                self.queue.add(key, new.spec.priority, self.now())
                self._changed.set()
            return
        self.queue.remove(key)
        if new is not None and new.spec.nodeName and not is_over(new):
            self.cache.set_pod(new)
        else:
            self.cache.remove_pod(key)
            if old is not None and old.spec.nodeName:
                self._wake(*ROOM_FREED)

    def _node_changed(self, old: core.Node | None, new: core.Node | None) -> None:
        if new is None:
            assert old is not None
            self.cache.remove_node(old.metadata.name)
            return
        self.cache.set_node(new)
        if old is None or _offer(old) != _offer(new):
            self._wake(*NODE_CAUSES)

    def _wake(self, *causes: str) -> None:
        self.queue.wake(causes, self.now())
        self._changed.set()


def _same_spec(old: core.Pod, new: core.Pod) -> bool:
    return old.metadata.uid == new.metadata.uid and old.spec == new.spec and old.metadata.labels == new.metadata.labels


def _offer(node: core.Node) -> tuple[Any, ...]:
    """What of a node matters to the filters; its heartbeats do not."""
    ready = meta.condition_is(node.status.conditions, "Ready")
    allocatable = sorted((name, value.string) for name, value in node.status.allocatable.items())
    taints = [(taint.key, taint.value, taint.effect) for taint in node.spec.taints]
    return ready, node.spec.unschedulable, taints, allocatable, sorted(node.metadata.labels.items())
