"""Printers of the core group, ``v1``."""

from collections.abc import Iterator
from typing import Any

from control.api import quantity
from control.api.printers import pods
from control.api.printers.model import Printer
from control.api.printers.parts import (
    NONE,
    UNKNOWN,
    UNSET,
    access_modes,
    address,
    age,
    containers,
    first_of,
    images,
    joined,
    labels,
    or_none,
)
from control.api.times import format_seconds

ROLE_LABEL = "node-role.kubernetes.io/"


def _replication_controller(rc: Any, now_s: float) -> list[str]:
    return [
        rc.metadata.name,
        str(rc.spec.replicas),
        str(rc.status.replicas),
        str(rc.status.readyReplicas),
        age(rc.metadata.creationTimestamp, now_s),
        containers(rc.spec.template.spec),
        images(rc.spec.template.spec),
        labels(rc.spec.selector),
    ]


def _service(service: Any, now_s: float) -> list[str]:
    return [
        service.metadata.name,
        service.spec.type,
        or_none(service.spec.clusterIP),
        external_ip(service),
        joined(_service_port(port) for port in service.spec.ports),
        age(service.metadata.creationTimestamp, now_s),
        labels(service.spec.selector),
    ]


def external_ip(service: Any) -> str:
    """The EXTERNAL-IP cell."""
    spec = service.spec
    if spec.type == "ExternalName":
        return str(spec.externalName)
    if spec.type != "LoadBalancer":
        return joined(spec.externalIPs)
    ingress = [each.ip or each.hostname for each in service.status.loadBalancer.ingress]
    return ",".join([*ingress, *spec.externalIPs]) or "<pending>"


def _service_port(port: Any) -> str:
    node = f":{port.nodePort}" if port.nodePort else ""
    return f"{port.port}{node}/{port.protocol or 'TCP'}"


def _endpoints(endpoints: Any, now_s: float) -> list[str]:
    return [
        endpoints.metadata.name,
        endpoint_addresses(endpoints),
        age(endpoints.metadata.creationTimestamp, now_s),
    ]


def endpoint_addresses(endpoints: Any, port_name: str | None = None) -> str:
    """``ip:port`` of three ready ones, and how many more; only those of one port when it is named."""
    found = list(_each_address(endpoints, port_name))
    return first_of(found)


def _each_address(endpoints: Any, port_name: str | None) -> Iterator[str]:
    for subset in endpoints.subsets:
        if not subset.ports:
            yield from (each.ip for each in subset.addresses)
        for port in subset.ports:
            if port_name is None or port.name == port_name:
                yield from (address(each.ip, port.port) for each in subset.addresses)


def _node(node: Any, now_s: float) -> list[str]:
    info = node.status.nodeInfo
    addresses = {each.type: each.address for each in reversed(node.status.addresses)}
    return [
        node.metadata.name,
        node_status(node),
        node_roles(node),
        age(node.metadata.creationTimestamp, now_s),
        info.kubeletVersion,
        addresses.get("InternalIP", NONE),
        addresses.get("ExternalIP", NONE),
        info.osImage or UNKNOWN,
        info.kernelVersion or UNKNOWN,
        info.containerRuntimeVersion or UNKNOWN,
    ]


def node_status(node: Any) -> str:
    """``Ready``, ``NotReady`` or ``Unknown``, and ``SchedulingDisabled``."""
    ready = next((each.status for each in node.status.conditions if each.type == "Ready"), "Unknown")
    words = [{"True": "Ready", "False": "NotReady"}.get(ready, "NotReady" if ready == "Unknown" else "Unknown")]
    if not any(each.type == "Ready" for each in node.status.conditions):
        words = ["Unknown"]
    return ",".join([*words, *(["SchedulingDisabled"] if node.spec.unschedulable else [])])


def node_roles(node: Any) -> str:
    """Roles from ``node-role.kubernetes.io/ROLE`` and ``kubernetes.io/role``."""
    marks = node.metadata.labels
    roles = {key.removeprefix(ROLE_LABEL) for key in marks if key.startswith(ROLE_LABEL)}
    roles |= {value for key, value in marks.items() if key == "kubernetes.io/role" and value}
    return joined(sorted(roles - {""}))


def _namespace(namespace: Any, now_s: float) -> list[str]:
    return [namespace.metadata.name, namespace.status.phase, age(namespace.metadata.creationTimestamp, now_s)]


def _config_map(config: Any, now_s: float) -> list[str]:
    count = len(config.data) + len(config.binaryData)
    return [config.metadata.name, str(count), age(config.metadata.creationTimestamp, now_s)]


def _secret(secret: Any, now_s: float) -> list[str]:
    return [secret.metadata.name, secret.type, str(len(secret.data)), age(secret.metadata.creationTimestamp, now_s)]


def _service_account(account: Any, now_s: float) -> list[str]:
    return [account.metadata.name, str(len(account.secrets)), age(account.metadata.creationTimestamp, now_s)]


def _event(event: Any, now_s: float) -> list[str]:
    return [
        last_seen(event, now_s),
        event.type,
        event.reason,
        involved_object(event),
        event.involvedObject.fieldPath,
        _source(event),
        event.message.strip(),
        _first_seen(event, now_s),
        str(_event_count(event)),
        event.metadata.name,
    ]


def involved_object(event: Any) -> str:
    """``pod/kubia-x1``."""
    return f"{event.involvedObject.kind.lower()}/{event.involvedObject.name}"


def last_seen(event: Any, now_s: float) -> str:
    """Age of an event's latest occurrence."""
    if event.HasField("series"):
        return age(event.series.lastObservedTime, now_s)
    if event.lastTimestamp.seconds:
        return age(event.lastTimestamp, now_s)
    return _first_seen(event, now_s)


def _first_seen(event: Any, now_s: float) -> str:
    return age(event.firstTimestamp if event.firstTimestamp.seconds else event.eventTime, now_s)


def _event_count(event: Any) -> int:
    return int(event.series.count if event.HasField("series") else event.count or 1)


def _source(event: Any) -> str:
    component = event.source.component or event.reportingComponent
    host = event.source.host or event.reportingInstance
    return ", ".join(part for part in (component, host) if part)


def _quota(quota: Any, now_s: float) -> list[str]:
    requests: list[str] = []
    limits: list[str] = []
    for name in sorted(quota.status.hard):
        used = quota.status.used[name].string if name in quota.status.used else "0"
        entry = f"{name}: {used}/{quota.status.hard[name].string}"
        (limits if name.startswith("limits.") else requests).append(entry)
    return [
        quota.metadata.name,
        ", ".join(requests),
        ", ".join(limits),
        age(quota.metadata.creationTimestamp, now_s),
    ]


def created_at(obj: Any, now_s: float) -> list[str]:
    """NAME and CREATED AT, for kinds that show the instant instead of the age."""
    return [obj.metadata.name, format_seconds(obj.metadata.creationTimestamp.seconds)]


def _volume(volume: Any, now_s: float) -> list[str]:
    spec, claim = volume.spec, volume.spec.claimRef
    return [
        volume.metadata.name,
        quantity.canonical(spec.capacity["storage"].string) if "storage" in spec.capacity else "",
        access_modes(spec.accessModes),
        spec.persistentVolumeReclaimPolicy,
        "Terminating" if volume.metadata.HasField("deletionTimestamp") else volume.status.phase,
        f"{claim.namespace}/{claim.name}" if spec.HasField("claimRef") else "",
        spec.storageClassName,
        spec.volumeAttributesClassName or UNSET,
        volume.status.reason,
        age(volume.metadata.creationTimestamp, now_s),
        spec.volumeMode or UNSET,
    ]


def _claim(claim: Any, now_s: float) -> list[str]:
    bound = bool(claim.spec.volumeName)
    capacity = claim.status.capacity
    return [
        claim.metadata.name,
        "Terminating" if claim.metadata.HasField("deletionTimestamp") else claim.status.phase,
        claim.spec.volumeName,
        quantity.canonical(capacity["storage"].string) if bound and "storage" in capacity else "",
        access_modes(claim.status.accessModes) if bound else "",
        claim.spec.storageClassName,
        claim.spec.volumeAttributesClassName or UNSET,
        age(claim.metadata.creationTimestamp, now_s),
        claim.spec.volumeMode or UNSET,
    ]


def _pod_template(template: Any, now_s: float) -> list[str]:
    spec = template.template.spec
    return [template.metadata.name, containers(spec), images(spec), labels(template.template.metadata.labels)]


WORKLOAD = "+CONTAINERS|+IMAGES|+SELECTOR"

PRINTERS = {
    "pods": Printer("NAME|READY|STATUS|RESTARTS|AGE|+IP|+NODE|+NOMINATED NODE|+READINESS GATES", pods.cells),
    "replicationcontrollers": Printer(f"NAME|DESIRED|CURRENT|READY|AGE|{WORKLOAD}", _replication_controller),
    "services": Printer("NAME|TYPE|CLUSTER-IP|EXTERNAL-IP|PORT(S)|AGE|+SELECTOR", _service),
    "endpoints": Printer("NAME|ENDPOINTS|AGE", _endpoints),
    "nodes": Printer(
        "NAME|STATUS|ROLES|AGE|VERSION|+INTERNAL-IP|+EXTERNAL-IP|+OS-IMAGE|+KERNEL-VERSION|+CONTAINER-RUNTIME", _node
    ),
    "namespaces": Printer("NAME|STATUS|AGE", _namespace),
    "configmaps": Printer("NAME|DATA|AGE", _config_map),
    "secrets": Printer("NAME|TYPE|DATA|AGE", _secret),
    "serviceaccounts": Printer("NAME|SECRETS|AGE", _service_account),
    "events": Printer(
        "LAST SEEN|TYPE|REASON|OBJECT|+SUBOBJECT|+SOURCE|MESSAGE|+FIRST SEEN|+COUNT|+NAME",
        _event,
    ),
    "resourcequotas": Printer("NAME|REQUEST|LIMIT|AGE", _quota),
    "limitranges": Printer("NAME|CREATED AT", created_at),
    "persistentvolumes": Printer(
        "NAME|CAPACITY|ACCESS MODES|RECLAIM POLICY|STATUS|CLAIM|STORAGECLASS|VOLUMEATTRIBUTESCLASS|REASON|AGE"
        "|+VOLUMEMODE",
        _volume,
    ),
    "persistentvolumeclaims": Printer(
        "NAME|STATUS|VOLUME|CAPACITY|ACCESS MODES|STORAGECLASS|VOLUMEATTRIBUTESCLASS|AGE|+VOLUMEMODE", _claim
    ),
    "podtemplates": Printer("NAME|CONTAINERS|IMAGES|POD LABELS", _pod_template),
}
