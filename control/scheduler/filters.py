"""May this pod run on this node? One small function per question, each answering with the reasons why not. Pure.

The reasons are Kubernetes' own words, because people and tools read them in FailedScheduling events.
"""

from collections.abc import Callable

from control.scheduler.affinity import required_fits
from control.scheduler.cache import NodeInfo, PodRecord, Port
from control.scheduler.taints import NOT_READY, UNREACHABLE, UNSCHEDULABLE, tolerated, untolerated
from protos.k8s import core_v1_pb2 as core

Filter = Callable[[core.Pod, PodRecord, NodeInfo], list[str]]


def node_name(pod: core.Pod, record: PodRecord, info: NodeInfo) -> list[str]:
    """spec.nodeName, when the pod asks for one node by name."""
    wanted = pod.spec.nodeName
    return ["node(s) didn't match the requested node name"] if wanted and wanted != info.name else []


def unschedulable(pod: core.Pod, record: PodRecord, info: NodeInfo) -> list[str]:
    """spec.unschedulable (cordon)."""
    if not info.unschedulable:
        return []
    taint = core.Taint(key=UNSCHEDULABLE, effect="NoSchedule")
    return [] if tolerated(taint, pod.spec.tolerations) else ["node(s) were unschedulable"]


def ready(pod: core.Pod, record: PodRecord, info: NodeInfo) -> list[str]:
    """The node's Ready condition, for a node whose taints do not say it yet."""
    if info.ready == "True":
        return []
    taint = core.Taint(key=NOT_READY if info.ready == "False" else UNREACHABLE, effect="NoSchedule")
    return [] if tolerated(taint, pod.spec.tolerations) else ["node(s) were not ready"]


def taints(pod: core.Pod, record: PodRecord, info: NodeInfo) -> list[str]:
    """Taints NoSchedule and NoExecute that the pod does not tolerate."""
    if not info.taints:
        return []
    left = untolerated(info.taints, pod.spec.tolerations, ("NoSchedule", "NoExecute"))
    return [f"node(s) had untolerated taint {{{left[0].key}: {left[0].value}}}"] if left else []


def affinity(pod: core.Pod, record: PodRecord, info: NodeInfo) -> list[str]:
    """nodeSelector and required node affinity."""
    fits = required_fits(pod, info.labels, info.name)
    return [] if fits else ["node(s) didn't match Pod's node affinity/selector"]


def ports(pod: core.Pod, record: PodRecord, info: NodeInfo) -> list[str]:
    """Host ports that another pod of the node holds."""
    clash = bool(record.ports) and any(_clashes(port, held) for port in record.ports for held in info.ports)
    return ["node(s) didn't have free ports for the requested pod ports"] if clash else []


def _clashes(left: Port, right: Port) -> bool:
    any_address = "0.0.0.0" in (left[0], right[0])
    return left[1:] == right[1:] and (any_address or left[0] == right[0])


def fit(pod: core.Pod, record: PodRecord, info: NodeInfo) -> list[str]:
    """Resource requests against what is allocatable and free, the number of pods included."""
    reasons = []
    if len(info.pods) + 1 > info.allocatable.get("pods", 110):
        reasons.append("Too many pods")
    for name, wanted in sorted(record.requests.items()):
        free = info.allocatable.get(name, 0) - info.requested.get(name, 0)
        if wanted > 0 and wanted > free:
            reasons.append(f"Insufficient {name}")
    return reasons


FILTERS: tuple[Filter, ...] = (node_name, unschedulable, ready, taints, affinity, ports, fit)
"""In the order they are asked; the first that refuses decides the reason."""
