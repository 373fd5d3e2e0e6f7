"""Which fields a field selector may name, per kind, and their values. Names are Kubernetes'."""

from collections.abc import Callable
from typing import Any

from control.api.kinds import Kind
from control.api.selectors import FieldSelector, SelectorError, parse_fields

COMMON: dict[str, Callable[[Any], str]] = {
    "metadata.name": lambda obj: obj.metadata.name,
    "metadata.namespace": lambda obj: obj.metadata.namespace,
}


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _involved(name: str) -> Callable[[Any], str]:
    return lambda event: str(getattr(event.involvedObject, name))


BY_KIND: dict[str, dict[str, Callable[[Any], str]]] = {
    "Pod": {
        "spec.nodeName": lambda pod: pod.spec.nodeName,
        "spec.restartPolicy": lambda pod: pod.spec.restartPolicy,
        "spec.schedulerName": lambda pod: pod.spec.schedulerName,
        "spec.serviceAccountName": lambda pod: pod.spec.serviceAccountName,
        "spec.hostNetwork": lambda pod: _flag(pod.spec.hostNetwork),
        "status.phase": lambda pod: pod.status.phase,
        "status.podIP": lambda pod: pod.status.podIP,
        "status.nominatedNodeName": lambda pod: pod.status.nominatedNodeName,
    },
    "Event": {
        **{
            f"involvedObject.{name}": _involved(name)
            for name in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
        },
        "reason": lambda event: event.reason,
        "type": lambda event: event.type,
        "source": lambda event: event.source.component or event.reportingComponent,
        "reportingComponent": lambda event: event.reportingComponent,
    },
    "Node": {"spec.unschedulable": lambda node: _flag(node.spec.unschedulable)},
    "Namespace": {"status.phase": lambda namespace: namespace.status.phase},
    "Secret": {"type": lambda secret: secret.type},
    "Service": {
        "spec.clusterIP": lambda service: service.spec.clusterIP,
        "spec.type": lambda service: service.spec.type,
    },
    "ReplicationController": {"status.replicas": lambda rc: str(rc.status.replicas)},
    "ReplicaSet": {"status.replicas": lambda rs: str(rs.status.replicas)},
    "Job": {"status.successful": lambda job: str(job.status.succeeded)},
}


def parse_for(kind: Kind, text: str) -> FieldSelector:
    """The field selector ``text`` for a kind. Raises SelectorError for a field that the kind does not offer."""
    selector = parse_fields(text)
    known = {**COMMON, **BY_KIND.get(kind.kind, {})}
    for name, _, _ in selector.terms:
        if name not in known:
            raise SelectorError(
                f"field label not supported: {name}; {kind.plural} can be selected by {', '.join(sorted(known))}"
            )
    return selector


def matches(kind: Kind, selector: FieldSelector, obj: Any) -> bool:
    """Whether ``obj`` meets ``selector``."""
    known = {**COMMON, **BY_KIND.get(kind.kind, {})}
    return all((known[name](obj) == value) is equal for name, equal, value in selector.terms)
