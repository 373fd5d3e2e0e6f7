"""Quality of service classes, and what requests and limits become in the kernel. Pure.

Guaranteed: every container limits cpu and memory, and requests what it limits. BestEffort: none asks for anything.
Burstable: the rest. Shares, quota and oom_score_adj are Kubernetes' formulas.
"""

from collections.abc import Mapping
from functools import lru_cache

from control.api import quantity
from protos.cri import runtime_pb2 as cri
from protos.k8s import core_v1_pb2 as core
from protos.k8s.resource_pb2 import Quantity

CPU_PERIOD_US = 100_000
QUOTA_MIN_US = 1_000
SHARES_MIN = 2
SHARES_MAX = 262_144
OOM_GUARANTEED = -997
OOM_BEST_EFFORT = 1000
COMPUTE = ("cpu", "memory")
CGROUP_ROOT = "kubepods"

milli = lru_cache(4096)(quantity.milli)
whole = lru_cache(4096)(quantity.whole)


def qos_class(pod: core.Pod) -> str:
    """Guaranteed, Burstable or BestEffort."""
    containers = [*pod.spec.containers, *pod.spec.initContainers]
    asked = [c.resources for c in containers if _amounts(c.resources.requests) or _amounts(c.resources.limits)]
    if not asked:
        return "BestEffort"
    return "Guaranteed" if all(_guaranteed(c.resources) for c in containers) else "Burstable"


def _amounts(resources: Mapping[str, Quantity]) -> dict[str, int]:
    return {name: milli(value.string) for name, value in resources.items() if name in COMPUTE and milli(value.string)}


def _guaranteed(resources: core.ResourceRequirements) -> bool:
    limits = _amounts(resources.limits)
    return all(name in limits for name in COMPUTE) and all(
        limits[name] == amount for name, amount in _amounts(resources.requests).items()
    )


def container_resources(pod: core.Pod, spec: core.Container, memory_capacity: int) -> cri.LinuxContainerResources:
    """The CRI resources of one container. ``memory_capacity`` is the node's, in bytes."""
    resources = cri.LinuxContainerResources(cpu_period=CPU_PERIOD_US)
    requests, limits = spec.resources.requests, spec.resources.limits
    request = (
        milli(requests["cpu"].string) if "cpu" in requests else milli(limits["cpu"].string) if "cpu" in limits else 0
    )
    resources.cpu_shares = shares(request)
    if "cpu" in limits:
        resources.cpu_quota = quota(milli(limits["cpu"].string))
    if "memory" in limits:
        resources.memory_limit_in_bytes = whole(limits["memory"].string)
    resources.oom_score_adj = oom_score_adj(pod, spec, memory_capacity)
    return resources


def pod_resources(pod: core.Pod) -> cri.LinuxContainerResources:
    """The sum over the containers, for the pod's cgroup. A limit holds for the pod only if every container has one."""
    specs = pod.spec.containers
    total = cri.LinuxContainerResources(cpu_period=CPU_PERIOD_US)
    total.cpu_shares = shares(
        sum(milli(s.resources.requests["cpu"].string) for s in specs if "cpu" in s.resources.requests)
    )
    if all("cpu" in spec.resources.limits for spec in specs):
        total.cpu_quota = quota(sum(milli(spec.resources.limits["cpu"].string) for spec in specs))
    if all("memory" in spec.resources.limits for spec in specs):
        total.memory_limit_in_bytes = sum(whole(spec.resources.limits["memory"].string) for spec in specs)
    return total


def shares(milli_cpu: int) -> int:
    """cpu.shares of a CPU request: 1024 per CPU."""
    return max(SHARES_MIN, min(SHARES_MAX, milli_cpu * 1024 // 1000))


def quota(milli_cpu: int) -> int:
    """cfs_quota_us of a CPU limit, for a period of 100 ms; 0 is no limit."""
    return max(QUOTA_MIN_US, milli_cpu * CPU_PERIOD_US // 1000) if milli_cpu else 0


def oom_score_adj(pod: core.Pod, spec: core.Container, memory_capacity: int) -> int:
    """Who dies first when memory runs out: BestEffort, then Burstable the less it requested."""
    kind = qos_class(pod)
    if kind == "Guaranteed":
        return OOM_GUARANTEED
    if kind == "BestEffort":
        return OOM_BEST_EFFORT
    requested = whole(spec.resources.requests["memory"].string) if "memory" in spec.resources.requests else 0
    return max(3, min(999, 1000 - 1000 * requested // max(memory_capacity, 1)))


def cgroup_parent(pod: core.Pod, systemd: bool = False, root: str = CGROUP_ROOT) -> str:
    """The pod's cgroup: ``/kubepods/burstable/pod<uid>``, or its systemd slice name."""
    tier = {"Burstable": "burstable", "BestEffort": "besteffort"}.get(qos_class(pod), "")
    uid = pod.metadata.uid
    if systemd:
        parts = [root, *([tier] if tier else []), f"pod{uid.replace('-', '_')}"]
        return "-".join(parts) + ".slice"
    return "/" + "/".join([root, *([tier] if tier else []), f"pod{uid}"])
