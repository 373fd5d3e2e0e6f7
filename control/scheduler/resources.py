"""What a pod asks of a node, in whole numbers: millicores of cpu, bytes, counts. Pure."""

from collections.abc import Mapping
from functools import lru_cache

from control.api import quantity
from protos.k8s import core_v1_pb2 as core
from protos.k8s.resource_pb2 import Quantity

Amounts = dict[str, int]
"""Resource name to amount: millicores for cpu, units (bytes, devices) for the rest."""

UNSTATED_CPU_MILLI = 100
UNSTATED_MEMORY_BYTES = 200 << 20
"""What a container that states no request is taken to use when nodes are compared (never when they are filtered)."""


@lru_cache(8192)
def amount(name: str, text: str) -> int:
    """The amount of resource ``name`` that a quantity's text states, rounded up."""
    return quantity.milli(text or "0") if name == "cpu" else quantity.whole(text or "0")


def amounts(resources: Mapping[str, Quantity]) -> Amounts:
    """A resource list in whole numbers."""
    return {name: amount(name, value.string) for name, value in resources.items()}


def pod_requests(pod: core.Pod) -> Amounts:
    """What must be free for the pod: the sum of its containers, or the largest init container where that is more.

    Init containers that keep running (restartPolicy Always) add to everything that starts after them.
    Source: Kubernetes resource requests of a pod, KEP-753.
    """
    total: Amounts = {}
    for spec in pod.spec.containers:
        _add(total, amounts(spec.resources.requests))
    beside: Amounts = {}
    peak: Amounts = {}
    for spec in pod.spec.initContainers:
        own = amounts(spec.resources.requests)
        if spec.restartPolicy == "Always":
            _add(total, own)
            _add(beside, own)
            own = {}
        _raise_to(peak, {name: own.get(name, 0) + beside.get(name, 0) for name in {*own, *beside}})
    _raise_to(total, peak)
    _add(total, amounts(pod.spec.overhead))
    return total


def scoring_requests(pod: core.Pod) -> tuple[int, int]:
    """(millicores, bytes) that the pod is expected to use: requests, and a guess for containers that state none."""
    cpu = memory = 0
    for spec in pod.spec.containers:
        own = amounts(spec.resources.requests)
        cpu += own.get("cpu", UNSTATED_CPU_MILLI)
        memory += own.get("memory", UNSTATED_MEMORY_BYTES)
    return cpu, memory


def _add(total: Amounts, more: Amounts) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


def _raise_to(total: Amounts, floor: Amounts) -> None:
    for name, value in floor.items():
        total[name] = max(total.get(name, 0), value)
