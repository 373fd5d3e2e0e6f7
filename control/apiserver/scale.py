"""The scale subresource: any workload with replicas seen as an autoscaling/v1 Scale, and changed through one. Pure."""

from typing import Any

from control.api import selectors
from control.api.kinds import Kind
from protos.k8s.autoscaling_v1_pb2 import Scale


def to_scale(kind: Kind, obj: Any) -> Scale:
    """The Scale of a workload: its metadata's identity, wanted and present replicas, selector as text."""
    scale = Scale()
    for name in ("name", "namespace", "uid", "resourceVersion"):
        setattr(scale.metadata, name, getattr(obj.metadata, name))
    scale.metadata.creationTimestamp.CopyFrom(obj.metadata.creationTimestamp)
    scale.spec.replicas = obj.spec.replicas
    scale.status.replicas = obj.status.replicas
    scale.status.selector = str(_selector(kind, obj))
    return scale


def _selector(kind: Kind, obj: Any) -> selectors.Selector:
    if kind.kind == "ReplicationController":
        return selectors.from_labels(obj.spec.selector)
    return selectors.from_message(obj.spec.selector)
