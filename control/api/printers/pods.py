"""A pod's line. The status is a summary that users know by heart, so its rules are kubectl's, one function each."""

from collections.abc import Sequence
from typing import Any

from control.api.printers.parts import NONE, age, or_none

NODE_UNREACHABLE = "NodeLost"


def cells(pod: Any, now_s: float) -> list[str]:
    """NAME, READY, STATUS, RESTARTS, AGE, then IP, NODE, NOMINATED NODE, READINESS GATES."""
    sidecars = sidecar_names(pod)
    statuses = [*pod.status.containerStatuses, *(s for s in pod.status.initContainerStatuses if s.name in sidecars)]
    ready = sum(status.ready and status.state.HasField("running") for status in statuses)
    total = len(pod.spec.containers) + len(sidecars)
    return [
        pod.metadata.name,
        f"{ready}/{total}",
        status_of(pod),
        restarts(pod, now_s),
        age(pod.metadata.creationTimestamp, now_s),
        or_none(pod.status.podIP),
        or_none(pod.spec.nodeName),
        or_none(pod.status.nominatedNodeName),
        readiness_gates(pod),
    ]


def sidecar_names(pod: Any) -> set[str]:
    """Init containers that keep running (restartPolicy Always)."""
    return {container.name for container in pod.spec.initContainers if container.restartPolicy == "Always"}


def readiness_gates(pod: Any) -> str:
    """``true gates/gates``."""
    gates = [gate.conditionType for gate in pod.spec.readinessGates]
    true = {condition.type for condition in pod.status.conditions if condition.status == "True"}
    return f"{sum(gate in true for gate in gates)}/{len(gates)}" if gates else NONE


def restarts(pod: Any, now_s: float) -> str:
    """``3 (2m ago)``: restarts of all containers, and when the last one was."""
    statuses = [*pod.status.containerStatuses, *pod.status.initContainerStatuses]
    relevant = statuses if _initializing(pod) or sidecar_names(pod) else list(pod.status.containerStatuses)
    count = sum(status.restartCount for status in relevant)
    last = [s.lastState.terminated.finishedAt for s in relevant if s.lastState.HasField("terminated")]
    newest = max(last, key=lambda instant: instant.seconds, default=None)
    return f"{count} ({age(newest, now_s)} ago)" if count and newest is not None and newest.seconds else str(count)


def status_of(pod: Any) -> str:
    """The word in the STATUS column."""
    reason = _initializing(pod) or _from_containers(pod) or pod.status.reason or pod.status.phase or "Unknown"
    if pod.metadata.HasField("deletionTimestamp"):
        if pod.status.reason == NODE_UNREACHABLE:
            return "Unknown"
        return reason if pod.status.phase in ("Succeeded", "Failed") else "Terminating"
    return str(reason)


def _initializing(pod: Any) -> str:
    """``Init:1/2`` and the like while init containers are not through; empty afterwards."""
    sidecars = sidecar_names(pod)
    total = len(pod.spec.initContainers)
    for done, status in enumerate(pod.status.initContainerStatuses):
        state = status.state
        if state.HasField("terminated") and state.terminated.exitCode == 0:
            continue
        if status.name in sidecars and status.started:
            continue
        return f"Init:{_stuck(state) or f'{done}/{total}'}"
    return ""


def _stuck(state: Any) -> str:
    if state.HasField("terminated"):
        return state.terminated.reason or _how_it_ended(state.terminated)
    waiting = state.waiting.reason if state.HasField("waiting") else ""
    return "" if waiting == "PodInitializing" else waiting


def _how_it_ended(terminated: Any) -> str:
    return f"Signal:{terminated.signal}" if terminated.signal else f"ExitCode:{terminated.exitCode}"


def _from_containers(pod: Any) -> str:
    """The reason of the first container that is not well; Running again when another one runs."""
    reason, any_running = "", False
    for status in reversed(pod.status.containerStatuses):
        state = status.state
        if state.HasField("waiting") and state.waiting.reason:
            reason = state.waiting.reason
        elif state.HasField("terminated"):
            reason = state.terminated.reason or _how_it_ended(state.terminated)
        elif status.ready and state.HasField("running"):
            any_running = True
    if reason == "Completed" and any_running:
        return "Running" if _is_ready(pod.status.conditions) else "NotReady"
    if not reason and any(c.type == "PodScheduled" and c.reason == "SchedulingGated" for c in pod.status.conditions):
        return "SchedulingGated"
    return reason


def _is_ready(conditions: Sequence[Any]) -> bool:
    return any(condition.type == "Ready" and condition.status == "True" for condition in conditions)
