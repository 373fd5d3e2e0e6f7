"""What every component asks of any object's metadata: keys, owners, conditions. Works on all kinds alike."""

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.message import Message

from control.api import times
from control.api.encode import encode
from control.api.kinds import by_message
from protos.k8s.meta_v1_pb2 import ObjectMeta, OwnerReference


def key(obj: Any) -> str:
    """``namespace/name``, or ``name`` for cluster-scoped objects."""
    meta: ObjectMeta = obj.metadata
    return f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name


def split_key(text: str) -> tuple[str, str]:
    """(namespace, name) of a key; the namespace is empty for cluster-scoped objects."""
    namespace, _, name = text.rpartition("/")
    return namespace, name


def describe(obj: Any) -> str:
    """``Pod default/web``: how a log line or message names an object."""
    return f"{by_message(obj).kind} {key(obj)}"


def copy_of(obj: Any) -> Any:
    """An independent copy. Objects from informers and caches are shared: copy before changing one."""
    other = type(obj)()
    other.CopyFrom(obj)
    return other


def is_deleting(obj: Any) -> bool:
    """True once the object is marked for deletion."""
    return bool(obj.metadata.HasField("deletionTimestamp"))


def controller_of(obj: Any) -> OwnerReference | None:
    """The owner reference with controller set, if any."""
    return next((owner for owner in obj.metadata.ownerReferences if owner.controller), None)


def is_controlled_by(obj: Any, owner: Any) -> bool:
    """Whether ``owner`` (by uid) is the object's controller."""
    found = controller_of(obj)
    return found is not None and found.uid == owner.metadata.uid


def owner_reference(owner: Any, controller: bool = True) -> OwnerReference:
    """A reference to ``owner``, as its controller puts it on what it creates."""
    kind = by_message(owner)
    return OwnerReference(
        apiVersion=kind.api_version,
        kind=kind.kind,
        name=owner.metadata.name,
        uid=owner.metadata.uid,
        controller=controller,
        blockOwnerDeletion=True,
    )


def find_condition(conditions: Iterable[Any], type_: str) -> Any | None:
    """The condition of a type, or None."""
    return next((condition for condition in conditions if condition.type == type_), None)


def condition_is(conditions: Iterable[Any], type_: str, status: str = "True") -> bool:
    """Whether the condition of a type has a status; an absent one is Unknown."""
    found = find_condition(conditions, type_)
    return (found.status if found else "Unknown") == status


def set_condition(conditions: Any, type_: str, status: str, reason: str = "", message: str = "") -> bool:
    """Set one condition in a repeated field, keeping lastTransitionTime while the status stays. True if changed."""
    found = find_condition(conditions, type_)
    if found is not None and (found.status, found.reason, found.message) == (status, reason, message):
        return False
    if found is None:
        found = conditions.add(type=type_)
    if found.status != status:
        found.lastTransitionTime.CopyFrom(times.now())
    found.status, found.reason, found.message = status, reason, message
    return True


def pod_is_ready(pod: Any) -> bool:
    """Whether the pod's Ready condition is True."""
    return condition_is(pod.status.conditions, "Ready")


def pod_is_finished(pod: Any) -> bool:
    """Whether no container of the pod will run again."""
    return pod.status.phase in ("Succeeded", "Failed")


def labels_of(obj: Any) -> Mapping[str, str]:
    """The labels as a mapping."""
    labels: Mapping[str, str] = obj.metadata.labels
    return labels


def equal(one: Message, other: Message) -> bool:
    """Whether two messages mean the same: an absent value and a zero that was written out are equal, as in Go."""
    return bool(one == other) or encode(one) == encode(other)


def same_content(one: Message, other: Message) -> bool:
    """Whether two objects are equal but for their resourceVersion."""
    left, right = copy_of(one), copy_of(other)
    left.metadata.resourceVersion = right.metadata.resourceVersion = ""
    return equal(left, right)
