"""Controllers of pods: ReplicationController, ReplicaSet, Deployment, StatefulSet, DaemonSet, Job."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from control.api.printers.parts import NONE, int_or_string, labels, selector
from ctl.describe.parts import Lines, events, head, mapping, table, timestamp
from ctl.describe.pod import containers, tolerations, volumes


def describe_replicas(obj: Any, pods: Sequence[Any], found_events: Sequence[Any] | None, now_s: float) -> Lines:
    """A ReplicationController or ReplicaSet."""
    wanted = (
        labels(obj.spec.selector) if obj.DESCRIPTOR.name == "ReplicationController" else selector(obj.spec.selector)
    )
    controller = next((each for each in obj.metadata.ownerReferences if each.controller), None)
    return [
        *head(obj, f"Selector:\t{wanted}"),
        *([f"Controlled By:\t{controller.kind}/{controller.name}"] if controller else []),
        f"Replicas:\t{obj.status.replicas} current / {obj.spec.replicas} desired",
        pods_status(pods),
        *template(obj.spec.template),
        *_conditions(obj),
        *events(found_events, now_s),
    ]


def describe_deployment(obj: Any, sets: Sequence[Any], found_events: Sequence[Any] | None, now_s: float) -> Lines:
    """A Deployment. ``sets``: its ReplicaSets."""
    old = [each for each in sets if _revision(each) != _revision(obj)]
    new = [each for each in sets if _revision(each) == _revision(obj)]
    status, strategy = obj.status, obj.spec.strategy
    rolling = strategy.rollingUpdate
    return [
        *head(obj, f"CreationTimestamp:\t{timestamp(obj.metadata.creationTimestamp)}"),
        f"Selector:\t{selector(obj.spec.selector)}",
        f"Replicas:\t{obj.spec.replicas} desired | {status.updatedReplicas} updated | {status.replicas} total | "
        f"{status.availableReplicas} available | {status.unavailableReplicas} unavailable",
        f"StrategyType:\t{strategy.type}",
        f"MinReadySeconds:\t{obj.spec.minReadySeconds}",
        *(
            [
                f"RollingUpdateStrategy:\t{int_or_string(rolling.maxUnavailable)} max unavailable, "
                f"{int_or_string(rolling.maxSurge)} max surge"
            ]
            if strategy.HasField("rollingUpdate")
            else []
        ),
        *template(obj.spec.template),
        *_conditions(obj),
        f"OldReplicaSets:\t{_sets(old)}",
        f"NewReplicaSet:\t{_sets(new)}",
        *events(found_events, now_s),
    ]


def _revision(obj: Any) -> str:
    return str(obj.metadata.annotations.get("deployment.kubernetes.io/revision", ""))


def _sets(sets: Sequence[Any]) -> str:
    created = (f"{s.metadata.name} ({s.status.replicas}/{s.spec.replicas} replicas created)" for s in sets)
    return ", ".join(created) or NONE


def describe_set(obj: Any, pods: Sequence[Any], found_events: Sequence[Any] | None, now_s: float) -> Lines:
    """A StatefulSet, DaemonSet or Job: what they have in common."""
    return [
        *head(obj, f"Selector:\t{selector(obj.spec.selector)}"),
        *_counts(obj),
        pods_status(pods),
        *template(obj.spec.template),
        *_conditions(obj),
        *events(found_events, now_s),
    ]


def _counts(obj: Any) -> Lines:
    status = obj.status
    if obj.DESCRIPTOR.name == "StatefulSet":
        return [f"Replicas:\t{obj.spec.replicas} desired | {status.replicas} total"]
    if obj.DESCRIPTOR.name == "DaemonSet":
        return [
            f"Desired Number of Nodes Scheduled: {status.desiredNumberScheduled}",
            f"Current Number of Nodes Scheduled: {status.currentNumberScheduled}",
            f"Number of Nodes with Available Pods: {status.numberAvailable}",
        ]
    return [f"Parallelism:\t{obj.spec.parallelism}", f"Completions:\t{obj.spec.completions or NONE}"]


def pods_status(pods: Sequence[Any]) -> str:
    """``Pods Status:  3 Running / 0 Waiting / 0 Succeeded / 0 Failed``."""
    phases = Counter("Waiting" if pod.status.phase in ("Pending", "") else pod.status.phase for pod in pods)
    return "Pods Status:\t" + " / ".join(
        f"{phases[phase]} {phase}" for phase in ("Running", "Waiting", "Succeeded", "Failed")
    )


def template(found: Any) -> Lines:
    """The Pod Template section."""
    spec = found.spec
    return [
        "Pod Template:",
        *(f"  {line}" for line in mapping("Labels", found.metadata.labels)),
        *([f"  Service Account:\t{spec.serviceAccountName}"] if spec.serviceAccountName else []),
        *(f"  {line}" for line in containers("Init Containers", spec.initContainers, gap=" ")),
        *(f"  {line}" for line in _template_containers(spec)),
        *volumes(spec.volumes, "  "),
        *(f"  {line}" for line in mapping("Node-Selectors", spec.nodeSelector)),
        *(f"  {line}" for line in tolerations(spec.tolerations)),
    ]


def _template_containers(spec: Any) -> Lines:
    """kubectl indents a template's containers by one blank less than a pod's."""
    lines = containers("Containers", spec.containers, gap=" ")
    return [line[2:] if line.startswith("    ") else line for line in lines]


def _conditions(obj: Any) -> Lines:
    found = obj.status.conditions
    if not found:
        return []
    return ["Conditions:", *table([("Type", "Status", "Reason"), *((f"{c.type} ", c.status, c.reason) for c in found)])]
