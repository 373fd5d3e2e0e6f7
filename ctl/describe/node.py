"""A node: conditions, capacity, and what its pods ask of it."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from control.api import quantity
from control.api.printers.core import node_roles
from control.api.printers.parts import NONE, UNSET, age, joined
from ctl.describe.parts import Lines, events, head, quantities, table, timestamp

SYSTEM_INFO = (
    ("Machine ID", "machineID"),
    ("System UUID", "systemUUID"),
    ("Boot ID", "bootID"),
    ("Kernel Version", "kernelVersion"),
    ("OS Image", "osImage"),
    ("Operating System", "operatingSystem"),
    ("Architecture", "architecture"),
    ("Container Runtime Version", "containerRuntimeVersion"),
    ("Kubelet Version", "kubeletVersion"),
)


def describe_node(
    node: Any, lease: Any | None, pods: Sequence[Any], found_events: Sequence[Any] | None, now_s: float
) -> Lines:
    """Everything a person asks of a node. ``pods`` are those on it that have not ended."""
    taints = [f"{t.key}={t.value}:{t.effect}" if t.value else f"{t.key}:{t.effect}" for t in node.spec.taints] or [NONE]
    lines = head(node)
    return [
        lines[0],
        f"Roles:\t{node_roles(node)}",
        *lines[1:],
        f"CreationTimestamp:\t{timestamp(node.metadata.creationTimestamp)}",
        f"Taints:\t{taints[0]}",
        *(f"\t{taint}" for taint in taints[1:]),
        f"Unschedulable:\t{str(node.spec.unschedulable).lower()}",
        *_lease(lease),
        *_conditions(node),
        "Addresses:",
        *(f"  {each.type}:\t{each.address}" for each in node.status.addresses),
        *quantities("Capacity", node.status.capacity),
        *quantities("Allocatable", node.status.allocatable),
        "System Info:",
        *(f"  {title}:\t{getattr(node.status.nodeInfo, field)}" for title, field in SYSTEM_INFO),
        *([f"PodCIDR:\t{node.spec.podCIDR}", f"PodCIDRs:\t{joined(node.spec.podCIDRs)}"] if node.spec.podCIDR else []),
        *_pods(pods, node.status.allocatable, now_s),
        *_allocated(pods, node.status.allocatable),
        *events(found_events, now_s),
    ]


def _lease(lease: Any | None) -> Lines:
    if lease is None:
        return ["Lease:", "  HolderIdentity:\t<unset>"]
    spec = lease.spec
    return [
        "Lease:",
        f"  HolderIdentity:\t{spec.holderIdentity or UNSET}",
        f"  AcquireTime:\t{timestamp(spec.acquireTime)}",
        f"  RenewTime:\t{timestamp(spec.renewTime)}",
    ]


def _conditions(node: Any) -> Lines:
    """kubectl ends these cells, but for the last one, with a blank."""
    rows = [("Type", "Status", "LastHeartbeatTime", "LastTransitionTime", "Reason", "Message")]
    rows += [
        (
            f"{c.type} ",
            f"{c.status} ",
            f"{timestamp(c.lastHeartbeatTime)} ",
            f"{timestamp(c.lastTransitionTime)} ",
            f"{c.reason} ",
            c.message,
        )
        for c in node.status.conditions
    ]
    return ["Conditions:", *table(rows)]


COLUMNS = (("cpu", "requests"), ("cpu", "limits"), ("memory", "requests"), ("memory", "limits"))


def _pods(pods: Sequence[Any], allocatable: Mapping[str, Any], now_s: float) -> Lines:
    rows = [("Namespace", "Name", "", "CPU Requests", "CPU Limits", "Memory Requests", "Memory Limits", "Age")]
    rows += [
        (
            pod.metadata.namespace,
            pod.metadata.name,
            "",
            *(_share(asked(pod, resource, what), resource, allocatable) for resource, what in COLUMNS),
            age(pod.metadata.creationTimestamp, now_s),
        )
        for pod in pods
    ]
    return [f"Non-terminated Pods:\t({len(pods)} in total)", *table(rows)]


def asked(pod: Any, resource: str, what: str) -> Fraction:
    """What a pod's containers ask for together; an init container that asks more counts instead."""
    each = [quantity.resource_value(getattr(c.resources, what), resource) for c in pod.spec.containers]
    first = [quantity.resource_value(getattr(c.resources, what), resource) for c in pod.spec.initContainers]
    return max([sum(each, Fraction(0)), *first])


def _share(value: Fraction, resource: str, allocatable: Mapping[str, Any]) -> str:
    """``250m (12%)``."""
    whole = quantity.resource_value(allocatable, resource)
    percent = int(value * 100 / whole) if whole else 0
    return f"{_amount(value, resource)} ({percent}%)"


def _amount(value: Fraction, resource: str) -> str:
    return quantity.format_milli(int(value * 1000)) if resource == "cpu" else quantity.format_value(value, "binary")


def _allocated(pods: Sequence[Any], allocatable: Mapping[str, Any]) -> Lines:
    rows = [("Resource", "Requests", "Limits")]
    for resource in ("cpu", "memory", "ephemeral-storage"):
        totals = [sum((asked(pod, resource, what) for pod in pods), Fraction(0)) for what in ("requests", "limits")]
        rows.append((resource, *(_share(total, resource, allocatable) for total in totals)))  # type: ignore[arg-type]
    note = "  (Total limits may be over 100 percent, i.e., overcommitted.)"
    return ["Allocated resources:", note, *table(rows)]
