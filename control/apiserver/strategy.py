"""What the server itself writes into an object on its way to the store. Pure: objects in place, the clock passed in.

Clients own metadata (but for what identifies the object) and spec; ``status`` belongs to the status subresource.
Source: apiserver, registry/rest/{create,update}.go and each kind's strategy.
"""

import uuid
from collections.abc import Callable
from typing import Any

from control.api.kinds import Kind
from control.api.meta import equal
from control.api.qos import qos_class
from protos.k8s import core_v1_pb2 as core
from protos.k8s.meta_v1_pb2 import ObjectMeta, Time

NAMESPACE_FINALIZER = "kubernetes"
IDENTITY = (
    "uid",
    "generation",
    "generateName",
    "selfLink",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
"""Metadata that only the server writes."""

NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
SUFFIX_LENGTH, NAME_MAX = 5, 63


def prepare_create(kind: Kind, obj: Any, now: Time) -> None:
    """Make a client's new object ours: identity, first generation, no status."""
    meta: ObjectMeta = obj.metadata
    for name in ("resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"):
        meta.ClearField(name)
    meta.uid = str(uuid.uuid4())
    meta.creationTimestamp.CopyFrom(now)
    if _has(obj, "spec"):
        meta.generation = 1
    if "status" in kind.subresources:
        obj.ClearField("status")
    rule = _CREATE.get(kind.kind)
    if rule is not None:
        rule(obj)


def prepare_update(kind: Kind, new: Any, old: Any) -> None:
    """Keep what an update of the main resource may not touch; count the generation when the content changed."""
    _keep_identity(new.metadata, old.metadata)
    if "status" in kind.subresources:
        new.ClearField("status")
        if old.HasField("status"):
            new.status.CopyFrom(old.status)
    rule = _UPDATE.get(kind.kind)
    if rule is not None:
        rule(new, old)
    if _has(new, "spec") and not equal(new.spec, old.spec):
        new.metadata.generation = old.metadata.generation + 1


def prepare_status_update(new: Any, old: Any) -> None:
    """Keep everything but ``status``."""
    status = type(new.status)()
    status.CopyFrom(new.status)
    version = new.metadata.resourceVersion
    new.CopyFrom(old)
    new.metadata.resourceVersion = version
    new.status.CopyFrom(status)


def _keep_identity(new: ObjectMeta, old: ObjectMeta) -> None:
    kept = ObjectMeta()
    kept.CopyFrom(old)
    for field in ObjectMeta.DESCRIPTOR.fields:
        if field.name not in IDENTITY:
            kept.ClearField(field.name)
    for name in IDENTITY:
        new.ClearField(name)
    new.MergeFrom(kept)


def _has(obj: Any, field: str) -> bool:
    return field in obj.DESCRIPTOR.fields_by_name


# -- kinds -------------------------------------------------------------------------------------------------------


def _create_pod(pod: core.Pod) -> None:
    pod.status.phase = "Pending"
    pod.status.qosClass = qos_class(pod)


def _create_namespace(namespace: core.Namespace) -> None:
    namespace.status.phase = "Active"
    if NAMESPACE_FINALIZER not in namespace.spec.finalizers:
        namespace.spec.finalizers.append(NAMESPACE_FINALIZER)


def _update_namespace(new: core.Namespace, old: core.Namespace) -> None:
    new.spec.CopyFrom(old.spec)


def _update_pod(new: core.Pod, old: core.Pod) -> None:
    new.status.qosClass = old.status.qosClass


_CREATE: dict[str, Callable[[Any], None]] = {"Pod": _create_pod, "Namespace": _create_namespace}
_UPDATE: dict[str, Callable[[Any, Any], None]] = {"Pod": _update_pod, "Namespace": _update_namespace}


def generated_name(prefix: str, choose: Callable[[str], str]) -> str:
    """``prefix`` and five characters that ``choose`` picks from an alphabet without vowels; 63 at most."""
    suffix = "".join(choose(NAME_ALPHABET) for _ in range(SUFFIX_LENGTH))
    return prefix[: NAME_MAX - SUFFIX_LENGTH] + suffix
