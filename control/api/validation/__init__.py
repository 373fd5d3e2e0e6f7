"""The rules of the kinds: what makes an object invalid, told field by field. Pure; defaults are set before.

``validate(obj)`` judges an object alone, ``validate_update(new, old)`` what may not change. Each kind's rules are in
the file named after it; ``faults`` has the vocabulary, ``names`` the forms of names, ``objectmeta`` what all share.
"""

from collections.abc import Callable
from typing import Any

from control.api.errors import Cause
from control.api.kinds import by_message
from control.api.validation import cluster, configuration, endpoints, pod, service, workloads
from control.api.validation.faults import Faults
from control.api.validation.objectmeta import validate_meta, validate_meta_update

Rule = Callable[[Any, Faults], None]
UpdateRule = Callable[[Any, Any, Faults], None]

RULES: dict[str, Rule] = {
    "Pod": pod.validate_pod,
    "PodTemplate": workloads.validate_pod_template_object,
    "ReplicationController": workloads.validate_replication_controller,
    "ReplicaSet": workloads.validate_selector_workload,
    "Deployment": workloads.validate_selector_workload,
    "DaemonSet": workloads.validate_selector_workload,
    "StatefulSet": workloads.validate_selector_workload,
    "Job": workloads.validate_job,
    "CronJob": workloads.validate_cron_job,
    "Service": service.validate_service,
    "Endpoints": endpoints.validate_endpoints,
    "EndpointSlice": endpoints.validate_endpoint_slice,
    "Node": cluster.validate_node,
    "Namespace": cluster.validate_namespace,
    "Lease": cluster.validate_lease,
    "Event": cluster.validate_event,
    "ConfigMap": configuration.validate_config_map,
    "Secret": configuration.validate_secret,
    "ServiceAccount": configuration.validate_service_account,
}

UPDATE_RULES: dict[str, UpdateRule] = {
    "Pod": pod.validate_pod_update,
    "ReplicationController": workloads.validate_nothing_fixed,
    "ReplicaSet": workloads.validate_fixed_selector,
    "Deployment": workloads.validate_fixed_selector,
    "DaemonSet": workloads.validate_fixed_selector,
    "StatefulSet": workloads.validate_fixed_selector,
    "Job": workloads.validate_fixed_selector,
    "Service": service.validate_service_update,
    "EndpointSlice": endpoints.validate_endpoint_slice_update,
    "Node": cluster.validate_node_update,
    "ConfigMap": configuration.validate_immutable_update,
    "Secret": configuration.validate_secret_update,
}


def validate(obj: Any) -> list[Cause]:
    """Everything wrong with ``obj``; empty when it is valid."""
    kind, faults = by_message(obj), Faults()
    validate_meta(obj.metadata, kind, faults)
    rule = RULES.get(kind.kind)
    if rule is not None:
        rule(obj, faults)
    return faults.causes


def validate_update(new: Any, old: Any) -> list[Cause]:
    """Everything wrong with replacing ``old`` by ``new``; includes ``validate(new)``."""
    faults = Faults()
    validate_meta_update(new.metadata, old.metadata, faults)
    rule = UPDATE_RULES.get(by_message(new).kind)
    if rule is not None:
        rule(new, old, faults)
    return faults.causes + validate(new)


__all__ = ["Faults", "validate", "validate_update"]
