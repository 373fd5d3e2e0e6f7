"""What a deletion does to an object now: remove it, mark it, or nothing. Pure.

A pod gets time to stop: it is marked with a deletionTimestamp, and removed when the kubelet deletes it again with
grace 0. Any object with finalizers is marked, and removed with its last finalizer.
Source: apiserver, registry/rest/delete.go.
"""

from dataclasses import dataclass
from typing import Any

from control.api.kinds import Kind
from control.api.meta import copy_of, pod_is_finished

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
GRACE_S = 30


@dataclass(frozen=True)
class Plan:
    """``removed``: the object goes now. Else it becomes ``marked``; None when it stays as it is."""

    removed: bool
    marked: Any | None = None


def plan_deletion(kind: Kind, obj: Any, grace_s: int | None, propagation: str, now_s: int) -> Plan:
    """Decide a deletion asked for with ``grace_s`` (None: the kind's default) at ``now_s``, seconds since 1970."""
    marked = copy_of(obj)
    _propagate(marked, propagation)
    grace = _grace(kind, obj, grace_s)
    if obj.metadata.HasField("deletionTimestamp"):
        _shorten(marked, grace)
    else:
        _mark(kind, marked, grace, now_s)
    if is_done(kind, marked):
        return Plan(removed=True, marked=marked)
    return Plan(removed=False, marked=marked if marked != obj else None)


def is_done(kind: Kind, obj: Any) -> bool:
    """Whether a marked object has nothing left to wait for."""
    meta = obj.metadata
    if not meta.HasField("deletionTimestamp") or meta.deletionGracePeriodSeconds or meta.finalizers:
        return False
    return not (kind.kind == "Namespace" and obj.spec.finalizers)


def _propagate(obj: Any, propagation: str) -> None:
    finalizers = obj.metadata.finalizers
    wanted = {"Foreground": FOREGROUND, "Orphan": ORPHAN}.get(propagation)
    for other in (FOREGROUND, ORPHAN):
        if propagation and other in finalizers and other != wanted:
            finalizers.remove(other)
    if wanted and wanted not in finalizers:
        finalizers.append(wanted)


def _grace(kind: Kind, obj: Any, grace_s: int | None) -> int:
    if kind.kind != "Pod" or not obj.spec.nodeName or pod_is_finished(obj):
        return 0
    if grace_s is not None:
        return grace_s if grace_s >= 0 else 1
    return obj.spec.terminationGracePeriodSeconds if obj.spec.HasField("terminationGracePeriodSeconds") else GRACE_S


def _mark(kind: Kind, obj: Any, grace: int, now_s: int) -> None:
    obj.metadata.deletionTimestamp.seconds = now_s + grace
    obj.metadata.deletionGracePeriodSeconds = grace
    if obj.metadata.generation:
        obj.metadata.generation += 1
    if kind.kind == "Namespace":
        obj.status.phase = "Terminating"


def _shorten(obj: Any, grace: int) -> None:
    meta = obj.metadata
    if grace < meta.deletionGracePeriodSeconds:
        meta.deletionTimestamp.seconds -= meta.deletionGracePeriodSeconds - grace
        meta.deletionGracePeriodSeconds = grace
