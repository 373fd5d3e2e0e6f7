"""Pods that nobody will clean up: of vanished nodes, deleted before they had a node, and too many finished ones.

``plan_garbage`` is pure.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from control.api import meta
from control.client import errors
from control.controllers.controller import Controller, Environment
from protos.k8s import core_v1_pb2 as core

log = logging.getLogger(__name__)

QUARANTINE_S = 40.0
"""How long a node must be missing before its pods are removed, seconds: it may only be registering again."""

FINISHED_MAX = 12_500
"""Finished pods kept in the whole cluster."""

SWEEP = "sweep"


@dataclass(frozen=True)
class Garbage:
    """One pod to remove, and why."""

    pod: core.Pod
    reason: str


def plan_garbage(
    pods: Iterable[core.Pod], nodes: set[str], missing: set[str], finished_max: int = FINISHED_MAX
) -> list[Garbage]:
    """Which pods to remove at once. ``missing``: names of nodes that have been gone for the quarantine."""
    found: list[Garbage] = []
    finished: list[core.Pod] = []
    for pod in pods:
        node = pod.spec.nodeName
        if node and node not in nodes:
            if node in missing:
                found.append(Garbage(pod, f"node {node} is gone"))
        elif not node and meta.is_deleting(pod):
            found.append(Garbage(pod, "deleted before it was scheduled"))
        elif meta.pod_is_finished(pod):
            finished.append(pod)
    finished.sort(key=lambda pod: pod.metadata.creationTimestamp.seconds)
    surplus = max(0, len(finished) - finished_max)
    return found + [Garbage(pod, "too many finished pods") for pod in finished[:surplus]]


class PodGCController(Controller):
    """Sweeps when a node goes, when a pod without a node is deleted, and when finished pods pile up."""

    name = "podgc"
    workers = 1

    def __init__(self, env: Environment, quarantine_s: float = QUARANTINE_S) -> None:
        super().__init__(env)
        self.quarantine_s = quarantine_s
        self.pods, self.nodes = env.informer(core.Pod), env.informer(core.Node)
        self._missing_since: dict[str, float] = {}
        self.nodes.add_handler(self._node_changed)
        self.pods.add_handler(self._pod_changed)

    def _node_changed(self, old: core.Node | None, new: core.Node | None) -> None:
        if new is None:
            self.queue.add(SWEEP)

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        if new is None:
            return
        lost = new.spec.nodeName and self.nodes.get(new.spec.nodeName) is None
        unscheduled = not new.spec.nodeName and meta.is_deleting(new)
        ended = meta.pod_is_finished(new) and (old is None or not meta.pod_is_finished(old))
        if lost or unscheduled or ended:
            self.queue.add(SWEEP)

    async def sync(self, key: str) -> None:
        """Look at all pods once."""
        pods, nodes, now = self.pods.list(), {node.metadata.name for node in self.nodes.list()}, self.env.now()
        wanted = {pod.spec.nodeName for pod in pods if pod.spec.nodeName} - nodes
        self._missing_since = {name: self._missing_since.get(name, now) for name in wanted}
        missing = {name for name, since in self._missing_since.items() if now - since >= self.quarantine_s}
        for garbage in plan_garbage(pods, nodes, missing):
            await self._remove(garbage)
        waiting = [since for name, since in self._missing_since.items() if name not in missing]
        if waiting:
            self.queue.add_after(SWEEP, max(0.01, min(waiting) + self.quarantine_s - now))

    async def _remove(self, garbage: Garbage) -> None:
        pod = garbage.pod
        log.info("removing pod", extra={"pod": meta.key(pod), "cause": garbage.reason})
        try:
            await self.client.delete(
                core.Pod,
                pod.metadata.name,
                namespace=pod.metadata.namespace,
                grace_period_seconds=0,
                uid=pod.metadata.uid,
            )
        except (errors.NotFound, errors.Conflict):
            log.debug("pod already gone", extra={"pod": meta.key(pod)})
