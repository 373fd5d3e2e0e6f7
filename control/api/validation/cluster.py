"""Nodes, namespaces, leases, events."""

from control.api.validation import names
from control.api.validation.faults import Faults
from protos.k8s import coordination_v1_pb2 as coordination
from protos.k8s import core_v1_pb2 as core

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def validate_node(node: core.Node, faults: Faults) -> None:
    """Taints with distinct key and effect."""
    seen = set()
    for index, taint in enumerate(node.spec.taints):
        path = f"spec.taints[{index}]"
        faults.each_invalid(f"{path}.key", taint.key, names.qualified(taint.key))
        faults.each_invalid(f"{path}.value", taint.value, names.label_value(taint.value))
        faults.one_of(f"{path}.effect", taint.effect, EFFECTS)
        if (taint.key, taint.effect) in seen:
            faults.duplicate(path, f"{taint.key}:{taint.effect}")
        seen.add((taint.key, taint.effect))


def validate_node_update(new: core.Node, old: core.Node, faults: Faults) -> None:
    """A pod range, once given, stays: pods have addresses of it."""
    if old.spec.podCIDR:
        faults.immutable("spec.podCIDR", new.spec.podCIDR, old.spec.podCIDR, "may not be changed once set")
    if old.spec.providerID:
        faults.immutable("spec.providerID", new.spec.providerID, old.spec.providerID, "may not be changed once set")


def validate_namespace(namespace: core.Namespace, faults: Faults) -> None:
    """Finalizers are qualified names."""
    for index, finalizer in enumerate(namespace.spec.finalizers):
        faults.each_invalid(f"spec.finalizers[{index}]", finalizer, names.qualified(finalizer))


def validate_lease(lease: coordination.Lease, faults: Faults) -> None:
    """A positive duration, no negative transitions."""
    if lease.spec.HasField("leaseDurationSeconds"):
        faults.at_least("spec.leaseDurationSeconds", lease.spec.leaseDurationSeconds, 1)
    faults.at_least("spec.leaseTransitions", lease.spec.leaseTransitions, 0)


def validate_event(event: core.Event, faults: Faults) -> None:
    """An event lives beside its object; those about cluster-scoped objects in ``default``."""
    about = event.involvedObject
    if about.namespace and about.namespace != event.metadata.namespace:
        faults.invalid("involvedObject.namespace", about.namespace, "does not match event.namespace")
    if not about.namespace and event.metadata.namespace not in ("default", "kube-system"):
        faults.invalid(
            "involvedObject.namespace", "", "an event about a cluster-scoped object must be in namespace default"
        )
    if event.type:
        faults.one_of("type", event.type, ("Normal", "Warning"))
