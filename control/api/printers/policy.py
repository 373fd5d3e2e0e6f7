"""Printers of who may do what and how much: RBAC, disruption budgets, autoscalers, leases."""

from typing import Any

from control.api.printers.core import created_at
from control.api.printers.model import Printer
from control.api.printers.parts import NONE, UNKNOWN, UNSET, age, int_or_string

TARGETS_MAX = 2


def _budget(budget: Any, now_s: float) -> list[str]:
    spec = budget.spec
    return [
        budget.metadata.name,
        int_or_string(spec.minAvailable) if spec.HasField("minAvailable") else "N/A",
        int_or_string(spec.maxUnavailable) if spec.HasField("maxUnavailable") else "N/A",
        str(budget.status.disruptionsAllowed),
        age(budget.metadata.creationTimestamp, now_s),
    ]


def _binding(binding: Any, now_s: float) -> list[str]:
    def subjects(kind: str) -> str:
        found = (each for each in binding.subjects if each.kind == kind)
        return ", ".join(f"{each.namespace}/{each.name}" if kind == "ServiceAccount" else each.name for each in found)

    return [
        binding.metadata.name,
        f"{binding.roleRef.kind}/{binding.roleRef.name}",
        age(binding.metadata.creationTimestamp, now_s),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]


def _autoscaler(scaler: Any, now_s: float) -> list[str]:
    target = scaler.spec.scaleTargetRef
    return [
        scaler.metadata.name,
        f"{target.kind}/{target.name}",
        _targets(scaler),
        str(scaler.spec.minReplicas) if scaler.spec.HasField("minReplicas") else UNSET,
        str(scaler.spec.maxReplicas),
        str(scaler.status.currentReplicas),
        age(scaler.metadata.creationTimestamp, now_s),
    ]


def _targets(scaler: Any) -> str:
    current = list(scaler.status.currentMetrics)
    shown = [_target(spec, current[at] if at < len(current) else None) for at, spec in enumerate(scaler.spec.metrics)]
    if not shown:
        return NONE
    more = f" + {len(shown) - TARGETS_MAX} more..." if len(shown) > TARGETS_MAX else ""
    return ", ".join(shown[:TARGETS_MAX]) + more


def _target(spec: Any, current: Any) -> str:
    if spec.type != "Resource":
        return f"{UNKNOWN}/{spec.type.lower()}"
    wanted = spec.resource.target
    measured = current.resource.current if current is not None and current.HasField("resource") else None
    if wanted.HasField("averageUtilization"):
        has = measured is not None and measured.HasField("averageUtilization")
        now = f"{measured.averageUtilization}%" if has and measured is not None else UNKNOWN
        return f"{spec.resource.name}: {now}/{wanted.averageUtilization}%"
    now = measured.averageValue.string if measured is not None else UNKNOWN
    return f"{spec.resource.name}: {now}/{wanted.averageValue.string}"


def _lease(lease: Any, now_s: float) -> list[str]:
    return [lease.metadata.name, lease.spec.holderIdentity, age(lease.metadata.creationTimestamp, now_s)]


_RBAC = "rbac.authorization.k8s.io"
_BINDING = Printer("NAME|ROLE|AGE|+USERS|+GROUPS|+SERVICEACCOUNTS", _binding)
_ROLE = Printer("NAME|CREATED AT", created_at)

PRINTERS = {
    f"roles.{_RBAC}": _ROLE,
    f"clusterroles.{_RBAC}": _ROLE,
    f"rolebindings.{_RBAC}": _BINDING,
    f"clusterrolebindings.{_RBAC}": _BINDING,
    "poddisruptionbudgets.policy": Printer(
        "NAME|MIN AVAILABLE|MAX UNAVAILABLE|ALLOWED DISRUPTIONS|AGE",
        _budget,
    ),
    "horizontalpodautoscalers.autoscaling": Printer(
        "NAME|REFERENCE|TARGETS|MINPODS|MAXPODS|REPLICAS|AGE",
        _autoscaler,
    ),
    "leases.coordination.k8s.io": Printer("NAME|HOLDER|AGE", _lease),
}
