"""Nodes that fall silent: marked Unknown, tainted, and their pods moved away. ``assess`` and ``evictions`` are pure.

A node is heard by its Lease, or else by its status. No clock but ours is trusted: what counts is when we last saw
either change. Times are Kubernetes' defaults: silent after 40 s; pods without a toleration of their own go after 5
min.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from control.api import meta, times
from control.client import errors
from control.controllers.controller import Controller, Environment
from control.scheduler.taints import NOT_READY, UNREACHABLE, tolerates
from protos.k8s import coordination_v1_pb2 as coordination
from protos.k8s import core_v1_pb2 as core

log = logging.getLogger(__name__)

GRACE_S = 40.0
EVICTION_TIMEOUT_S = 300.0
LEASE_NAMESPACE = "kube-node-lease"
OURS = (NOT_READY, UNREACHABLE)
CONDITIONS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


@dataclass(frozen=True)
class Assessment:
    """What a node should look like, and when to look again (seconds from now, None for never)."""

    silent: bool
    taints: tuple[tuple[str, str], ...] = ()
    look_again_s: float | None = None


def assess(node: core.Node, heard_at: float, now: float, grace_s: float = GRACE_S) -> Assessment:
    """Judge ``node``, last heard at ``heard_at``. Taints are (key, effect) and replace those among ``OURS``."""
    silent = now - heard_at >= grace_s
    ready = "Unknown" if silent else _ready(node)
    key = {"False": NOT_READY, "Unknown": UNREACHABLE}.get(ready)
    taints = ((key, "NoSchedule"), (key, "NoExecute")) if key else ()
    return Assessment(silent, taints, None if silent else heard_at + grace_s - now)


def _ready(node: core.Node) -> str:
    condition = meta.find_condition(node.status.conditions, "Ready")
    return condition.status if condition is not None else "Unknown"


def with_taints(node: core.Node, wanted: Iterable[tuple[str, str]]) -> core.Node | None:
    """A copy of ``node`` with exactly these of our taints, others untouched; None if it has them already."""
    keep = [taint for taint in node.spec.taints if taint.key not in OURS]
    ours = {(taint.key, taint.effect): taint for taint in node.spec.taints if taint.key in OURS}
    if set(ours) == set(wanted):
        return None
    changed: core.Node = meta.copy_of(node)
    del changed.spec.taints[:]
    changed.spec.taints.extend(keep)
    for key, effect in wanted:
        changed.spec.taints.append(ours.get((key, effect), core.Taint(key=key, effect=effect, timeAdded=times.now())))
    return changed


def with_unknown(node: core.Node) -> core.Node | None:
    """A copy of ``node`` whose conditions say that nobody knows; None if they do already."""
    changed: core.Node = meta.copy_of(node)
    for type_ in CONDITIONS:
        never = meta.find_condition(node.status.conditions, type_) is None
        reason = "NodeStatusNeverUpdated" if never else "NodeStatusUnknown"
        if never or not meta.condition_is(node.status.conditions, type_, "Unknown"):
            message = "Kubelet never posted node status." if never else "Kubelet stopped posting node status."
            meta.set_condition(changed.status.conditions, type_, "Unknown", reason, message)
    return None if changed == node else changed


@dataclass(frozen=True)
class Evictions:
    """Pods to delete now, and when the next one is due (seconds from now)."""

    now: tuple[core.Pod, ...] = ()
    look_again_s: float | None = None
    reasons: dict[str, str] = field(default_factory=dict)


def evictions(
    taints: Sequence[core.Taint], pods: Iterable[core.Pod], now: float, timeout_s: float = EVICTION_TIMEOUT_S
) -> Evictions:
    """Which pods of a node with ``taints`` must go.

    A pod that tolerates a NoExecute taint for a time stays that long from timeAdded; one that does not tolerate it
    goes at once, or after ``timeout_s`` for the taints of a silent or unready node.
    """
    active = [taint for taint in taints if taint.effect == "NoExecute"]
    due: list[core.Pod] = []
    waits: list[float] = []
    for pod in pods:
        if meta.is_deleting(pod) or meta.pod_is_finished(pod) or not active:
            continue
        deadlines = [d for taint in active if (d := _deadline(pod, taint, now, timeout_s)) is not None]
        if deadlines and min(deadlines) <= now:
            due.append(pod)
        elif deadlines:
            waits.append(min(deadlines) - now)
    return Evictions(tuple(due), min(waits, default=None))


def _deadline(pod: core.Pod, taint: core.Taint, now: float, timeout_s: float) -> float | None:
    """When ``taint`` drives ``pod`` out; None for never."""
    matching = [toleration for toleration in pod.spec.tolerations if tolerates(toleration, taint)]
    since = float(taint.timeAdded.seconds) if taint.HasField("timeAdded") else now
    if not matching:
        return since + timeout_s if taint.key in OURS else since
    limits = [toleration.tolerationSeconds for toleration in matching if toleration.HasField("tolerationSeconds")]
    return since + max(min(limits), 0) if limits else None


class NodeController(Controller):
    """Watches nodes and their leases; one key per node."""

    name = "node"

    def __init__(
        self, env: Environment, grace_s: float = GRACE_S, eviction_timeout_s: float = EVICTION_TIMEOUT_S
    ) -> None:
        super().__init__(env)
        self.grace_s, self.eviction_timeout_s = grace_s, eviction_timeout_s
        self.nodes = env.informer(core.Node)
        self.leases = env.informer(coordination.Lease)
        self.pods = env.informer(core.Pod)
        self.pods.add_index("node", lambda pod: [pod.spec.nodeName] if pod.spec.nodeName else [])
        self._heard: dict[str, tuple[tuple[int, ...], float]] = {}
        self.nodes.add_handler(self._node_changed)
        self.leases.add_handler(self._lease_changed)
        self.pods.add_handler(self._pod_changed)

    def _node_changed(self, old: core.Node | None, new: core.Node | None) -> None:
        if new is None and old is not None:
            self._heard.pop(old.metadata.name, None)
        self.enqueue_either(old, new)

    def _lease_changed(self, old: coordination.Lease | None, new: coordination.Lease | None) -> None:
        if new is not None and new.metadata.namespace == LEASE_NAMESPACE:
            self.queue.add(new.metadata.name)

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        """A pod that arrives on a tainted node, or was marked ready again there."""
        if new is not None and new.spec.nodeName and old is None:
            node = self.nodes.get(new.spec.nodeName)
            if node is not None and any(taint.effect == "NoExecute" for taint in node.spec.taints):
                self.queue.add(new.spec.nodeName)

    async def sync(self, key: str) -> None:
        """Judge node ``key`` and act on it."""
        node = self.nodes.get(key)
        if node is None:
            return
        now = self.env.now()
        assessment = assess(node, self._last_heard(node, now), now, self.grace_s)
        if assessment.silent:
            node = await self._mark_unknown(node)
        tainted = with_taints(node, assessment.taints)
        if tainted is not None:
            log.info("tainting node", extra={"node": key, "taints": [key for key, _ in assessment.taints]})
            node = await self.client.update(tainted)
        pods = self.pods.by_index("node", key)
        if assessment.taints:
            await self._mark_pods(pods)
        due = evictions(node.spec.taints, pods, now, self.eviction_timeout_s)
        for pod in due.now:
            await self._evict(pod, key)
        waits = [wait for wait in (assessment.look_again_s, due.look_again_s) if wait is not None]
        if waits:
            self.queue.add_after(key, min(waits) + 0.01)

    def _last_heard(self, node: core.Node, now: float) -> float:
        """When we last saw the node's lease or heartbeat change; a change seen now counts from now."""
        lease = self.leases.get(f"{LEASE_NAMESPACE}/{node.metadata.name}")
        beat = meta.find_condition(node.status.conditions, "Ready")
        sign = (
            lease.spec.renewTime.seconds if lease is not None else 0,
            lease.spec.renewTime.nanos if lease is not None else 0,
            beat.lastHeartbeatTime.seconds if beat is not None else 0,
        )
        known = self._heard.get(node.metadata.name)
        if known is None or known[0] != sign:
            self._heard[node.metadata.name] = known = (sign, now)
        return known[1]

    async def _mark_unknown(self, node: core.Node) -> core.Node:
        changed = with_unknown(node)
        if changed is None:
            return node
        self.recorder.normal(node, "NodeNotReady", f"Node {node.metadata.name} status is now: NodeNotReady")
        log.warning("node stopped reporting", extra={"node": node.metadata.name})
        return await self.client.update_status(changed)

    async def _mark_pods(self, pods: Iterable[core.Pod]) -> None:
        """Pods of a node that is not ready serve nothing: their Ready condition turns False, so endpoints drop them."""
        for pod in pods:
            if not meta.pod_is_ready(pod):
                continue
            changed: core.Pod = meta.copy_of(pod)
            meta.set_condition(changed.status.conditions, "Ready", "False", "NodeNotReady", "the node is not ready")
            try:
                await self.client.update_status(changed)
            except errors.NotFound:
                log.debug("pod already gone", extra={"pod": meta.key(pod)})

    async def _evict(self, pod: core.Pod, node: str) -> None:
        self.recorder.normal(pod, "TaintManagerEviction", f"Marking for deletion Pod {meta.key(pod)}")
        log.info("evicting pod", extra={"pod": meta.key(pod), "node": node})
        try:
            await self.client.delete(
                core.Pod, pod.metadata.name, namespace=pod.metadata.namespace, uid=pod.metadata.uid
            )
        except (errors.NotFound, errors.Conflict):
            log.debug("pod already gone", extra={"pod": meta.key(pod)})
