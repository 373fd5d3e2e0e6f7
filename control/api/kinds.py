"""Which kinds exist: one table, a row per kind. Storage keys, JSON, REST paths, printing and completion derive from it.

Names, plurals, short names, categories and subresources are Kubernetes'. Adding a kind is adding a row.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.message import Message

from protos.k8s import (
    apps_v1_pb2,
    autoscaling_v1_pb2,
    autoscaling_v2_pb2,
    batch_v1_pb2,
    coordination_v1_pb2,
    core_v1_pb2,
    discovery_v1_pb2,
    meta_v1_pb2,
    networking_v1_pb2,
    policy_v1_pb2,
    rbac_v1_pb2,
    storage_v1_pb2,
)


class UnknownKind(LookupError):
    """No kind has this name; the message says which names come close."""


@dataclass(frozen=True)
class Kind:
    """One served kind. ``message`` and ``list_message`` are its protobuf classes; ``storage_path`` is the directory
    below ``/registry/`` where Kubernetes keeps its objects, when that is not the plural."""

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...]
    namespaced: bool
    message: type[Any]
    list_message: type[Any]
    subresources: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    storage_path: str = ""

    @property
    def api_version(self) -> str:
        """``v1`` for the core group, else ``group/version``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """The name used in errors: ``pods``, ``deployments.apps``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def registry_prefix(self) -> str:
        """The key prefix of every object of the kind, ending in a slash."""
        return f"/registry/{self.storage_path or self.plural}/"


def _kinds(
    group: str, module: Any, rows: Iterable[tuple[str, str, str, bool, str, str]], version: str = "v1"
) -> list[Kind]:
    return [_kind(group, version, module, *row) for row in rows]


def _kind(
    group: str, version: str, module: Any, kind: str, plural: str, short: str, namespaced: bool, subs: str, more: str
) -> Kind:
    options = dict(item.split("=") for item in more.split())
    return Kind(
        group=group,
        version=version,
        kind=kind,
        plural=plural,
        singular=options.get("singular", kind.lower()),
        short_names=tuple(short.split()),
        namespaced=namespaced,
        message=getattr(module, kind),
        list_message=getattr(module, f"{kind}List"),
        subresources=tuple(subs.split()),
        categories=tuple(options.get("in", "").split()),
        storage_path=options.get("path", ""),
    )


N, C = True, False
"""Namespaced, cluster-scoped."""

RBAC, STORAGE, NETWORKING = "rbac.authorization.k8s.io", "storage.k8s.io", "networking.k8s.io"
POD_SUBRESOURCES = "status log exec attach portforward binding eviction"

# kind, plural, short names, scope, subresources, options
KINDS: tuple[Kind, ...] = tuple(
    _kinds(
        "",
        core_v1_pb2,
        [
            ("Pod", "pods", "po", N, POD_SUBRESOURCES, "in=all"),
            ("ReplicationController", "replicationcontrollers", "rc", N, "status scale", "in=all path=controllers"),
            ("Service", "services", "svc", N, "status", "in=all path=services/specs"),
            ("Endpoints", "endpoints", "ep", N, "", "path=services/endpoints"),
            ("Node", "nodes", "no", C, "status", "path=minions"),
            ("Namespace", "namespaces", "ns", C, "status finalize", ""),
            ("ConfigMap", "configmaps", "cm", N, "", ""),
            ("Secret", "secrets", "", N, "", ""),
            ("ServiceAccount", "serviceaccounts", "sa", N, "", ""),
            ("Event", "events", "ev", N, "", ""),
            ("ResourceQuota", "resourcequotas", "quota", N, "status", ""),
            ("LimitRange", "limitranges", "limits", N, "", ""),
            ("PersistentVolume", "persistentvolumes", "pv", C, "status", ""),
            ("PersistentVolumeClaim", "persistentvolumeclaims", "pvc", N, "status", ""),
            ("PodTemplate", "podtemplates", "", N, "", ""),
        ],
    )
    + _kinds(
        "apps",
        apps_v1_pb2,
        [
            ("Deployment", "deployments", "deploy", N, "status scale", "in=all"),
            ("ReplicaSet", "replicasets", "rs", N, "status scale", "in=all"),
            ("DaemonSet", "daemonsets", "ds", N, "status", "in=all"),
            ("StatefulSet", "statefulsets", "sts", N, "status scale", "in=all"),
            ("ControllerRevision", "controllerrevisions", "", N, "", ""),
        ],
    )
    + _kinds(
        "batch",
        batch_v1_pb2,
        [
            ("Job", "jobs", "", N, "status", "in=all"),
            ("CronJob", "cronjobs", "cj", N, "status", "in=all"),
        ],
    )
    + _kinds("discovery.k8s.io", discovery_v1_pb2, [("EndpointSlice", "endpointslices", "", N, "", "")])
    + _kinds("coordination.k8s.io", coordination_v1_pb2, [("Lease", "leases", "", N, "", "")])
    + _kinds(
        "autoscaling",
        autoscaling_v2_pb2,
        [("HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", N, "status", "in=all")],
        version="v2",
    )
    + _kinds("policy", policy_v1_pb2, [("PodDisruptionBudget", "poddisruptionbudgets", "pdb", N, "status", "")])
    + _kinds(
        RBAC,
        rbac_v1_pb2,
        [
            ("Role", "roles", "", N, "", ""),
            ("ClusterRole", "clusterroles", "", C, "", ""),
            ("RoleBinding", "rolebindings", "", N, "", ""),
            ("ClusterRoleBinding", "clusterrolebindings", "", C, "", ""),
        ],
    )
    + _kinds(STORAGE, storage_v1_pb2, [("StorageClass", "storageclasses", "sc", C, "", "")])
    + _kinds(
        NETWORKING,
        networking_v1_pb2,
        [
            ("NetworkPolicy", "networkpolicies", "netpol", N, "", ""),
            ("Ingress", "ingresses", "ing", N, "status", "path=ingress"),
            ("IngressClass", "ingressclasses", "", C, "", ""),
        ],
    )
)

# Objects that travel but are not kept: api_version, kind, message.
TRANSIENT: tuple[tuple[str, str, type[Any]], ...] = (
    ("autoscaling/v1", "Scale", autoscaling_v1_pb2.Scale),
    ("policy/v1", "Eviction", policy_v1_pb2.Eviction),
    ("v1", "Binding", core_v1_pb2.Binding),
    ("v1", "DeleteOptions", meta_v1_pb2.DeleteOptions),
    ("v1", "Status", meta_v1_pb2.Status),
    ("v1", "List", meta_v1_pb2.List),
    ("meta.k8s.io/v1", "PartialObjectMetadata", meta_v1_pb2.PartialObjectMetadata),
    ("meta.k8s.io/v1", "PartialObjectMetadataList", meta_v1_pb2.PartialObjectMetadataList),
)

_BY_KIND = {(k.api_version, k.kind): k for k in KINDS}
_BY_MESSAGE = {k.message.DESCRIPTOR.full_name: k for k in KINDS}
_TYPES: dict[tuple[str, str], type[Any]] = {
    **{(k.api_version, k.kind): k.message for k in KINDS},
    **{(k.api_version, f"{k.kind}List"): k.list_message for k in KINDS},
    **{(api_version, kind): message for api_version, kind, message in TRANSIENT},
}
_TYPE_NAMES = {message.DESCRIPTOR.full_name: name for name, message in _TYPES.items()}


def by_kind(api_version: str, kind: str) -> Kind:
    """The kind named by a manifest's apiVersion and kind. Raises UnknownKind."""
    found = _BY_KIND.get((api_version, kind))
    if found is None:
        raise UnknownKind(_unknown_type(api_version, kind))
    return found


def by_message(message: type[Any] | Message) -> Kind:
    """The kind of a protobuf class or object. Raises UnknownKind."""
    name = message.DESCRIPTOR.full_name
    found = _BY_MESSAGE.get(name)
    if found is None:
        raise UnknownKind(f"{name} is not an object that this server keeps")
    return found


def by_name(text: str) -> Kind:
    """The kind that a person means: plural, singular, short name or kind in any case, or ``plural.group``.

    Raises UnknownKind naming those that come close.
    """
    found = _names().get(text.lower())
    if found is None:
        close = difflib.get_close_matches(text.lower(), _names(), n=1)
        hint = f", did you mean {close[0]}?" if close else "; `ctl api-resources` lists all"
        raise UnknownKind(f"there is no resource type {text!r}{hint}")
    return found


@cache
def _names() -> dict[str, Kind]:
    names: dict[str, Kind] = {}
    for kind in KINDS:
        for name in (kind.plural, kind.singular, *kind.short_names, f"{kind.plural}.{kind.group}".rstrip(".")):
            names.setdefault(name, kind)
        names.setdefault(f"{kind.plural}.{kind.version}.{kind.group}".rstrip("."), kind)
    return names


def message_type(api_version: str, kind: str) -> type[Any]:
    """The protobuf class of an apiVersion and kind, lists and transient types included. Raises UnknownKind."""
    found = _TYPES.get((api_version, kind))
    if found is None:
        raise UnknownKind(_unknown_type(api_version, kind))
    return found


def type_name(message: type[Any] | Message) -> tuple[str, str] | None:
    """(apiVersion, kind) of a class or object, or None when its JSON carries none."""
    return _TYPE_NAMES.get(message.DESCRIPTOR.full_name)


def _unknown_type(api_version: str, kind: str) -> str:
    same_kind = sorted(version for version, name in _TYPES if name == kind)
    if same_kind:
        return f"there is no {kind} in {api_version!r}: use apiVersion {' or '.join(same_kind)}"
    close = difflib.get_close_matches(kind, [name for _, name in _TYPES], n=1)
    hint = f", did you mean {close[0]}?" if close else "; `ctl api-resources` lists all"
    return f"there is no kind {kind!r} in {api_version!r}{hint}"
