"""Of the nodes that fit, which is best? Each score is 0 (worst) to 100 (best); their weighted sum decides. Pure."""

from collections.abc import Callable, Sequence

from control.scheduler.affinity import preferred_weight
from control.scheduler.cache import NodeInfo, PodRecord
from control.scheduler.taints import untolerated
from protos.k8s import core_v1_pb2 as core

MAX = 100
Score = Callable[[core.Pod, PodRecord, Sequence[NodeInfo]], list[int]]
"""Scores all candidates at once, because some scores are relative to the best candidate."""


def least_allocated(pod: core.Pod, record: PodRecord, nodes: Sequence[NodeInfo]) -> list[int]:
    """More free cpu and memory is better."""
    return [(_free(cpu) + _free(memory)) // 2 for cpu, memory in (_use(record, info) for info in nodes)]


def balanced(pod: core.Pod, record: PodRecord, nodes: Sequence[NodeInfo]) -> list[int]:
    """Cpu and memory used to the same degree is better: neither runs out with much of the other left."""
    return [round(MAX * (1 - abs(cpu - memory) / 2)) for cpu, memory in (_use(record, info) for info in nodes)]


def spread(pod: core.Pod, record: PodRecord, nodes: Sequence[NodeInfo]) -> list[int]:
    """Fewer pods of the same controller is better."""
    counts = [info.groups.get(record.group, 0) if record.group else 0 for info in nodes]
    most = max(counts, default=0)
    return [MAX if most == 0 else MAX * (most - count) // most for count in counts]


def preferred_affinity(pod: core.Pod, record: PodRecord, nodes: Sequence[NodeInfo]) -> list[int]:
    """Preferred node affinity terms, relative to the candidate that satisfies most."""
    if not pod.spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution:
        return [0] * len(nodes)
    return _relative([preferred_weight(pod, info.labels, info.name) for info in nodes])


def preferred_taints(pod: core.Pod, record: PodRecord, nodes: Sequence[NodeInfo]) -> list[int]:
    """Fewer untolerated PreferNoSchedule taints is better."""
    if not any(info.taints for info in nodes):
        return [MAX] * len(nodes)
    counts = [len(untolerated(info.taints, pod.spec.tolerations, ("PreferNoSchedule",))) for info in nodes]
    return [MAX - score for score in _relative(counts)]


def _use(record: PodRecord, info: NodeInfo) -> tuple[float, float]:
    """The shares of cpu and memory, 0 to 1, in use if the pod ran here."""
    cpu, memory = info.allocatable.get("cpu", 0), info.allocatable.get("memory", 0)
    used_cpu, used_memory = info.expected_cpu + record.expected[0], info.expected_memory + record.expected[1]
    return (min(1.0, used_cpu / cpu) if cpu else 1.0, min(1.0, used_memory / memory) if memory else 1.0)


def _free(used: float) -> int:
    return round(MAX * (1 - used))


def _relative(values: list[int]) -> list[int]:
    top = max(values, default=0)
    return [MAX * value // top if top else 0 for value in values]


SCORES: dict[str, tuple[Score, int]] = {
    "least-allocated": (least_allocated, 1),
    "balanced": (balanced, 1),
    "spread": (spread, 2),
    "preferred-affinity": (preferred_affinity, 2),
    "preferred-taints": (preferred_taints, 3),
}
"""Name to score and weight."""
