"""The scheduler's picture of the nodes: what each offers, what its pods take. Every change costs O(changed).

A pod that was just bound is *assumed* on its node before the watch confirms it, so the next pod sees the room as taken.
"""

from dataclasses import dataclass, field
from typing import TypeVar

from control.scheduler.resources import Amounts, amounts, pod_requests, scoring_requests
from protos.k8s import core_v1_pb2 as core

K = TypeVar("K")
Port = tuple[str, str, int]
"""(host ip, protocol, host port)"""


@dataclass(frozen=True, slots=True)
class PodRecord:
    """What one pod takes of its node."""

    key: str
    node: str
    requests: Amounts
    expected: tuple[int, int]
    ports: tuple[Port, ...]
    group: str
    """The uid of the controller that owns it, by which pods are spread; "" for none."""


def record_of(pod: core.Pod, node: str = "") -> PodRecord:
    """The record of ``pod`` on ``node`` (default: the node in its spec)."""
    return PodRecord(
        key=f"{pod.metadata.namespace}/{pod.metadata.name}",
        node=node or pod.spec.nodeName,
        requests=pod_requests(pod),
        expected=scoring_requests(pod),
        ports=host_ports(pod),
        group=next((owner.uid for owner in pod.metadata.ownerReferences if owner.controller), ""),
    )


def host_ports(pod: core.Pod) -> tuple[Port, ...]:
    """The host ports that the pod takes; with hostNetwork every container port is one."""
    found = []
    for spec in pod.spec.containers:
        for port in spec.ports:
            number = port.hostPort or (port.containerPort if pod.spec.hostNetwork else 0)
            if number:
                found.append((port.hostIP or "0.0.0.0", port.protocol or "TCP", number))
    return tuple(found)


@dataclass
class NodeInfo:
    """One node and the sum of what its pods take. Invariant: the sums equal the sums over ``pods``."""

    name: str
    node: core.Node | None = None
    # What filters and scores ask of the node, read once when it changes.
    allocatable: Amounts = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    ready: str = "Unknown"
    unschedulable: bool = False
    taints: tuple[core.Taint, ...] = ()
    pods: dict[str, PodRecord] = field(default_factory=dict)
    requested: Amounts = field(default_factory=dict)
    expected_cpu: int = 0
    expected_memory: int = 0
    ports: dict[Port, int] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)

    def set_node(self, node: core.Node) -> None:
        """Take over what the node offers."""
        self.node = node
        self.allocatable = amounts(node.status.allocatable or node.status.capacity)
        self.labels = dict(node.metadata.labels)
        self.ready = next((c.status for c in node.status.conditions if c.type == "Ready"), "Unknown")
        self.unschedulable = node.spec.unschedulable
        self.taints = tuple(node.spec.taints)

    def add(self, pod: PodRecord) -> None:
        """Count ``pod``; it must not be here yet."""
        self.pods[pod.key] = pod
        self._count(pod, 1)

    def remove(self, key: str) -> None:
        """Stop counting the pod ``key``; it must be here."""
        self._count(self.pods.pop(key), -1)

    def _count(self, pod: PodRecord, sign: int) -> None:
        for name, value in pod.requests.items():
            self.requested[name] = self.requested.get(name, 0) + sign * value
        self.expected_cpu += sign * pod.expected[0]
        self.expected_memory += sign * pod.expected[1]
        for port in pod.ports:
            _tally(self.ports, port, sign)
        if pod.group:
            _tally(self.groups, pod.group, sign)


def _tally(counts: dict[K, int], key: K, sign: int) -> None:
    left = counts.get(key, 0) + sign
    if left:
        counts[key] = left
    else:
        del counts[key]


class Cache:
    """All nodes by name, and where each pod is counted."""

    def __init__(self) -> None:
        self._infos: dict[str, NodeInfo] = {}
        self._where: dict[str, str] = {}
        self._assumed: set[str] = set()

    def nodes(self) -> list[NodeInfo]:
        """The nodes that exist, by age of acquaintance. A name that only pods mention is no node."""
        return [info for info in self._infos.values() if info.node is not None]

    def set_node(self, node: core.Node) -> None:
        """A node was added or changed."""
        self._info(node.metadata.name).set_node(node)

    def remove_node(self, name: str) -> None:
        """A node is gone; its pods stay counted until they go too, in case it comes back."""
        info = self._info(name)
        info.node = None
        self._drop_if_empty(info)

    def set_pod(self, pod: core.Pod) -> None:
        """An assigned pod was added or changed; the watch's word replaces an assumption."""
        record = record_of(pod)
        self._assumed.discard(record.key)
        here = self._where.get(record.key)
        if here == record.node and self._infos[here].pods[record.key] == record:
            return
        self._forget(record.key)
        if record.node and not is_over(pod):
            self._place(record)

    def remove_pod(self, key: str) -> None:
        """A pod is gone or over."""
        self._assumed.discard(key)
        self._forget(key)

    def assume(self, record: PodRecord) -> None:
        """Count a pod on the node it is being bound to."""
        self._forget(record.key)
        self._place(record)
        self._assumed.add(record.key)

    def unassume(self, key: str) -> None:
        """The binding failed; does nothing if the watch has confirmed the pod meanwhile."""
        if key in self._assumed:
            self.remove_pod(key)

    def _info(self, name: str) -> NodeInfo:
        return self._infos.setdefault(name, NodeInfo(name))

    def _place(self, record: PodRecord) -> None:
        self._info(record.node).add(record)
        self._where[record.key] = record.node

    def _forget(self, key: str) -> None:
        name = self._where.pop(key, None)
        if name is not None:
            self._infos[name].remove(key)
            self._drop_if_empty(self._infos[name])

    def _drop_if_empty(self, info: NodeInfo) -> None:
        if info.node is None and not info.pods:
            self._infos.pop(info.name, None)


def is_over(pod: core.Pod) -> bool:
    """True for a pod that takes no room any more: it succeeded or failed."""
    return pod.status.phase in ("Succeeded", "Failed")
