"""From one pod template to the next, a few pods at a time: a Deployment's decisions, pure.

A Deployment owns one ReplicaSet per template it has had. ``reconcile`` looks at all of them and says which to make,
scale and delete; it takes one step and is asked again when the world has followed. The bounds are Kubernetes': never
more than ``replicas + maxSurge`` pods, never fewer than ``replicas - maxUnavailable`` available ones.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from control.api import meta
from control.api.meta import copy_of
from protos.k8s import apps_v1_pb2 as apps
from protos.k8s import core_v1_pb2 as core
from protos.k8s.intstr_pb2 import IntOrString

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
HASH_LENGTH = 10
DEADLINE_S = 600
HISTORY_LIMIT = 10


@dataclass(frozen=True)
class Actions:
    """What to do for one Deployment now. ``scale`` holds (ReplicaSet, wanted replicas)."""

    create: apps.ReplicaSet | None = None
    scale: tuple[tuple[apps.ReplicaSet, int], ...] = ()
    revise: apps.ReplicaSet | None = None
    delete: tuple[apps.ReplicaSet, ...] = ()
    revision: int = 0
    status: apps.DeploymentStatus | None = None
    look_again_s: float | None = None


def reconcile(deployment: apps.Deployment, owned: Iterable[apps.ReplicaSet], now: float) -> Actions:
    """The next step for ``deployment``. ``owned``: the ReplicaSets that it controls."""
    sets = sorted((rs for rs in owned if not meta.is_deleting(rs)), key=lambda rs: (revision_of(rs), rs.metadata.name))
    current = newest(deployment, sets)
    old = [rs for rs in sets if rs is not current]
    revision = _revision(current, old)
    status, look_again_s = status_of(deployment, current, old, now)
    if meta.is_deleting(deployment):
        return Actions(status=status)
    made = _make(deployment, old, revision) if current is None and not deployment.spec.paused else None
    scale = () if made is not None else tuple(_scale(deployment, current, old))
    revise = current if current is not None and revision_of(current) != revision else None
    surplus = _surplus_history(deployment, old) if current is not None else ()
    return Actions(made, scale, revise, tuple(surplus), revision, status, look_again_s)


# -- templates ---------------------------------------------------------------------------------------------------


def template_hash(deployment: apps.Deployment) -> str:
    """A short name of the deployment's pod template; a collision count makes it another one."""
    data = deployment.spec.template.SerializeToString(deterministic=True)
    data += str(deployment.status.collisionCount or "").encode()
    number = int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
    return "".join(ALPHABET[number // len(ALPHABET) ** i % len(ALPHABET)] for i in range(HASH_LENGTH))


def newest(deployment: apps.Deployment, sets: Iterable[apps.ReplicaSet]) -> apps.ReplicaSet | None:
    """The ReplicaSet of the deployment's present template; the oldest, should there be several."""
    return next((rs for rs in sets if _without_hash(rs.spec.template) == deployment.spec.template), None)


def _without_hash(template: core.PodTemplateSpec) -> core.PodTemplateSpec:
    plain: core.PodTemplateSpec = copy_of(template)
    plain.metadata.labels.pop(HASH_LABEL, None)
    return plain


def revision_of(rs: apps.ReplicaSet) -> int:
    """Which of the deployment's templates this was, counted from 1."""
    text = rs.metadata.annotations.get(REVISION, "0")
    return int(text) if text.isdigit() else 0


def _revision(current: apps.ReplicaSet | None, old: Iterable[apps.ReplicaSet]) -> int:
    """The present template's revision: above all others, so that a rollback is a new revision."""
    above = max((revision_of(rs) for rs in old), default=0)
    return revision_of(current) if current is not None and revision_of(current) > above else above + 1


def _make(deployment: apps.Deployment, old: Sequence[apps.ReplicaSet], revision: int) -> apps.ReplicaSet | None:
    """The ReplicaSet of a new template. Recreate waits until the old pods are gone."""
    if _recreates(deployment) and any(rs.spec.replicas or rs.status.replicas for rs in old):
        return None
    mark = template_hash(deployment)
    rs = apps.ReplicaSet()
    rs.metadata.name = f"{deployment.metadata.name}-{mark}"
    rs.metadata.namespace = deployment.metadata.namespace
    rs.metadata.labels.update({**deployment.spec.template.metadata.labels, HASH_LABEL: mark})
    rs.metadata.annotations[REVISION] = str(revision)
    rs.metadata.ownerReferences.append(meta.owner_reference(deployment))
    rs.spec.selector.CopyFrom(deployment.spec.selector)
    rs.spec.selector.matchLabels[HASH_LABEL] = mark
    rs.spec.template.CopyFrom(deployment.spec.template)
    rs.spec.template.metadata.labels[HASH_LABEL] = mark
    rs.spec.minReadySeconds = deployment.spec.minReadySeconds
    wanted, surge, _ = bounds(deployment)
    rs.spec.replicas = max(0, min(wanted, wanted + surge - sum(one.spec.replicas for one in old)))
    return rs


# -- numbers -----------------------------------------------------------------------------------------------------


def _recreates(deployment: apps.Deployment) -> bool:
    return deployment.spec.strategy.type == "Recreate"


def bounds(deployment: apps.Deployment) -> tuple[int, int, int]:
    """(replicas, most above them, most of them unavailable). Both zero would stand still: then one may be missing."""
    wanted = deployment.spec.replicas if deployment.spec.HasField("replicas") else 1
    if _recreates(deployment):
        return wanted, 0, wanted
    rolling = deployment.spec.strategy.rollingUpdate
    surge = _resolve(rolling.maxSurge if rolling.HasField("maxSurge") else None, wanted, math.ceil)
    missing = _resolve(rolling.maxUnavailable if rolling.HasField("maxUnavailable") else None, wanted, math.floor)
    if not surge and not missing:
        missing = 1
    return wanted, surge, min(missing, wanted)


def _resolve(value: IntOrString | None, of: int, rounding: Callable[[float], int]) -> int:
    """A number, or a share of ``of``; 25% if unset."""
    text = "25%" if value is None else value.strVal if value.type == 1 else ""
    if not text:
        return value.intVal if value is not None else 0
    share = int(text.rstrip("%") or 0) * of / 100
    return rounding(share)


def _scale(
    deployment: apps.Deployment, current: apps.ReplicaSet | None, old: Sequence[apps.ReplicaSet]
) -> Iterable[tuple[apps.ReplicaSet, int]]:
    """One step: up first, and down as far as what is available allows."""
    wanted, surge, missing = bounds(deployment)
    if current is None:
        yield from ((rs, 0) for rs in old if rs.spec.replicas and _recreates(deployment) and not deployment.spec.paused)
        return
    if deployment.spec.paused:
        yield from (
            [(current, wanted)] if not any(rs.spec.replicas for rs in old) and current.spec.replicas != wanted else []
        )
        return
    total = current.spec.replicas + sum(rs.spec.replicas for rs in old)
    target = wanted
    if current.spec.replicas < wanted:
        target = min(wanted, current.spec.replicas + max(0, wanted + surge - total))
    if target != current.spec.replicas:
        yield current, target
    yield from _shrink(current, old, wanted - missing, total)


def _shrink(
    current: apps.ReplicaSet, old: Sequence[apps.ReplicaSet], available_min: int, total: int
) -> Iterable[tuple[apps.ReplicaSet, int]]:
    """Old ReplicaSets, oldest first: pods that are not available go for nothing, others as availability allows."""
    unavailable_new = current.spec.replicas - current.status.availableReplicas
    room = total - available_min - unavailable_new
    spare = current.status.availableReplicas + sum(rs.status.availableReplicas for rs in old) - available_min
    for rs in old:
        if not rs.spec.replicas:
            continue
        broken = min(max(rs.spec.replicas - rs.status.availableReplicas, 0), max(room, 0))
        healthy = min(rs.spec.replicas - broken, max(spare, 0), max(room - broken, 0))
        room, spare = room - broken - healthy, spare - healthy
        if broken or healthy:
            yield rs, rs.spec.replicas - broken - healthy


def _surplus_history(deployment: apps.Deployment, old: Sequence[apps.ReplicaSet]) -> Sequence[apps.ReplicaSet]:
    limit = deployment.spec.revisionHistoryLimit if deployment.spec.HasField("revisionHistoryLimit") else HISTORY_LIMIT
    idle = [rs for rs in old if not rs.spec.replicas and not rs.status.replicas]
    return idle[: max(0, len(idle) - limit)]


# -- status ------------------------------------------------------------------------------------------------------


def status_of(
    deployment: apps.Deployment, current: apps.ReplicaSet | None, old: Sequence[apps.ReplicaSet], now: float
) -> tuple[apps.DeploymentStatus, float | None]:
    """The status, and in how many seconds the progress deadline passes (None: it cannot)."""
    every = [*old, *([current] if current is not None else [])]
    wanted, _, missing = bounds(deployment)
    status = apps.DeploymentStatus(
        observedGeneration=deployment.metadata.generation,
        replicas=sum(rs.status.replicas for rs in every),
        updatedReplicas=current.status.replicas if current is not None else 0,
        readyReplicas=sum(rs.status.readyReplicas for rs in every),
        availableReplicas=sum(rs.status.availableReplicas for rs in every),
    )
    status.unavailableReplicas = max(0, wanted - status.availableReplicas)
    if deployment.status.HasField("collisionCount"):
        status.collisionCount = deployment.status.collisionCount
    status.conditions.extend(deployment.status.conditions)
    enough = status.availableReplicas >= wanted - missing
    _condition(
        status,
        "Available",
        enough,
        "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        f"Deployment {'has' if enough else 'does not have'} minimum availability.",
        now,
    )
    return status, _progress(deployment, status, current, wanted, now)


def complete(status: apps.DeploymentStatus, wanted: int) -> bool:
    """True when every pod is of the present template and available."""
    return status.updatedReplicas == status.replicas == status.availableReplicas == wanted


def _progress(
    deployment: apps.Deployment,
    status: apps.DeploymentStatus,
    current: apps.ReplicaSet | None,
    wanted: int,
    now: float,
) -> float | None:
    name = current.metadata.name if current is not None else deployment.metadata.name
    if current is not None and complete(status, wanted):
        message = f'ReplicaSet "{name}" has successfully progressed.'
        _condition(status, "Progressing", True, "NewReplicaSetAvailable", message, now)
        return None
    before = meta.find_condition(deployment.status.conditions, "Progressing")
    if before is None or _moved(deployment.status, status) or before.reason == "NewReplicaSetAvailable":
        message = f'ReplicaSet "{name}" is progressing.'
        _condition(status, "Progressing", True, "ReplicaSetUpdated", message, now, touch=True)
        before = meta.find_condition(status.conditions, "Progressing")
    limit = (
        deployment.spec.progressDeadlineSeconds if deployment.spec.HasField("progressDeadlineSeconds") else DEADLINE_S
    )
    left = float(before.lastUpdateTime.seconds + limit - now) if before is not None else float(limit)
    if deployment.spec.paused:
        return None
    if left <= 0:
        message = f'ReplicaSet "{name}" has timed out progressing.'
        _condition(status, "Progressing", False, "ProgressDeadlineExceeded", message, now)
        return None
    return left


def _moved(old: apps.DeploymentStatus, new: apps.DeploymentStatus) -> bool:
    """True if the rollout came further: more updated, ready or available pods, or fewer old ones."""
    was = (old.updatedReplicas, old.readyReplicas, old.availableReplicas, old.updatedReplicas - old.replicas)
    now = (new.updatedReplicas, new.readyReplicas, new.availableReplicas, new.updatedReplicas - new.replicas)
    return any(after > before for before, after in zip(was, now, strict=True))


def _condition(
    status: apps.DeploymentStatus, type_: str, true: bool, reason: str, message: str, now: float, touch: bool = False
) -> None:
    """Set a condition; its lastUpdateTime moves when it says something new, or when ``touch``."""
    changed = meta.set_condition(status.conditions, type_, "True" if true else "False", reason, message)
    if changed or touch:
        found = meta.find_condition(status.conditions, type_)
        if found is not None:
            found.lastUpdateTime.seconds = int(now)
