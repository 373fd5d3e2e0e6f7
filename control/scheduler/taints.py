"""Taints and tolerations. Pure; also what the node controller evicts by."""

from collections.abc import Iterable

from protos.k8s import core_v1_pb2 as core

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"


def tolerates(toleration: core.Toleration, taint: core.Taint) -> bool:
    """True if ``toleration`` matches ``taint``: an empty effect matches all, an empty key with Exists likewise."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    return bool(toleration.key) and toleration.value == taint.value


def tolerated(taint: core.Taint, tolerations: Iterable[core.Toleration]) -> bool:
    """True if any toleration matches."""
    return any(tolerates(toleration, taint) for toleration in tolerations)


def untolerated(
    taints: Iterable[core.Taint], tolerations: Iterable[core.Toleration], effects: Iterable[str]
) -> list[core.Taint]:
    """The taints with one of ``effects`` that no toleration matches."""
    chosen, known = set(effects), list(tolerations)
    return [taint for taint in taints if taint.effect in chosen and not tolerated(taint, known)]
