"""What all objects share: names, namespaces, labels, annotations, owners, finalizers."""

from collections.abc import Callable, Mapping

from control.api.kinds import Kind
from control.api.validation import names
from control.api.validation.faults import Faults
from protos.k8s.meta_v1_pb2 import LabelSelector, ObjectMeta

ANNOTATIONS_BYTES_MAX = 256 << 10

NAME_RULES: dict[str, Callable[[str], list[str]]] = {
    "Namespace": names.dns_label,
    "Service": names.dns_label,
    "Role": names.path_segment,
    "ClusterRole": names.path_segment,
    "RoleBinding": names.path_segment,
    "ClusterRoleBinding": names.path_segment,
}


def validate_meta(meta: ObjectMeta, kind: Kind, faults: Faults) -> None:
    """Names, labels, annotations, owner references and finalizers."""
    rule = NAME_RULES.get(kind.kind, names.dns_subdomain)
    if meta.name:
        faults.each_invalid("metadata.name", meta.name, rule(meta.name))
    elif meta.generateName:
        prefix = meta.generateName.rstrip("-.") or meta.generateName
        faults.each_invalid("metadata.generateName", meta.generateName, rule(prefix))
    else:
        faults.required("metadata.name", "name or generateName is required")
    _validate_namespace(meta, kind, faults)
    validate_labels(meta.labels, "metadata.labels", faults)
    validate_annotations(meta.annotations, "metadata.annotations", faults)
    _validate_owners(meta, faults)
    for index, finalizer in enumerate(meta.finalizers):
        faults.each_invalid(f"metadata.finalizers[{index}]", finalizer, names.qualified(finalizer))


def _validate_namespace(meta: ObjectMeta, kind: Kind, faults: Faults) -> None:
    if not kind.namespaced:
        if meta.namespace:
            faults.forbidden("metadata.namespace", f"a {kind.kind} is not in a namespace: leave it empty")
    elif not meta.namespace:
        faults.required("metadata.namespace")
    else:
        faults.each_invalid("metadata.namespace", meta.namespace, names.dns_label(meta.namespace))


def validate_labels(labels: Mapping[str, str], path: str, faults: Faults) -> None:
    """Keys are qualified names, values label values."""
    for key, value in labels.items():
        faults.each_invalid(path, key, names.qualified(key))
        faults.each_invalid(f"{path}[{key}]", value, names.label_value(value))


def validate_annotations(annotations: Mapping[str, str], path: str, faults: Faults) -> None:
    """Keys are qualified names; 256 KiB in all."""
    for key in annotations:
        faults.each_invalid(path, key, names.qualified(key.lower()))
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > ANNOTATIONS_BYTES_MAX:
        faults.too_long(path, f"may not be more than {ANNOTATIONS_BYTES_MAX} bytes in all, got {size}")


def _validate_owners(meta: ObjectMeta, faults: Faults) -> None:
    controllers = 0
    for index, owner in enumerate(meta.ownerReferences):
        path = f"metadata.ownerReferences[{index}]"
        for name in ("apiVersion", "kind", "name", "uid"):
            if not getattr(owner, name):
                faults.required(f"{path}.{name}")
        controllers += owner.controller
    if controllers > 1:
        faults.invalid("metadata.ownerReferences", controllers, "only one reference can have controller set to true")


def validate_selector(selector: LabelSelector, path: str, faults: Faults) -> None:
    """A LabelSelector: label syntax, operators and their values."""
    validate_labels(selector.matchLabels, f"{path}.matchLabels", faults)
    for index, term in enumerate(selector.matchExpressions):
        at = f"{path}.matchExpressions[{index}]"
        faults.each_invalid(f"{at}.key", term.key, names.qualified(term.key))
        faults.one_of(f"{at}.operator", term.operator, ("In", "NotIn", "Exists", "DoesNotExist"))
        if term.operator in ("In", "NotIn") and not term.values:
            faults.required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        if term.operator in ("Exists", "DoesNotExist") and term.values:
            faults.forbidden(f"{at}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")


def validate_meta_update(new: ObjectMeta, old: ObjectMeta, faults: Faults) -> None:
    """What identifies an object never changes; a deletion once asked for adds no finalizers."""
    for name in ("name", "namespace", "uid", "creationTimestamp"):
        faults.immutable(f"metadata.{name}", getattr(new, name), getattr(old, name))
    if old.HasField("deletionTimestamp"):
        added = [item for item in new.finalizers if item not in old.finalizers]
        if added:
            faults.forbidden(
                "metadata.finalizers",
                f"no new finalizers can be added if the object is being deleted, found new finalizers {added}",
            )
