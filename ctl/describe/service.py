"""A service, with the endpoints behind each of its ports."""

from collections.abc import Sequence
from typing import Any

from control.api.printers.core import endpoint_addresses
from control.api.printers.parts import NONE, UNSET, int_or_string, joined, labels
from ctl.describe.parts import Lines, events, head


def describe_service(service: Any, endpoints: Any | None, found_events: Sequence[Any], now_s: float) -> Lines:
    """Everything a person asks of a service."""
    spec = service.spec
    lines = [
        *head(service),
        f"Selector:\t{labels(spec.selector)}",
        f"Type:\t{spec.type}",
        f"IP Family Policy:\t{spec.ipFamilyPolicy or UNSET}",
        f"IP Families:\t{joined(spec.ipFamilies)}",
        f"IP:\t{spec.clusterIP}",
        f"IPs:\t{joined(spec.clusterIPs)}",
    ]
    if spec.externalIPs:
        lines.append(f"External IPs:\t{joined(spec.externalIPs)}")
    if spec.externalName:
        lines.append(f"External Name:\t{spec.externalName}")
    ingress = [each.ip or each.hostname for each in service.status.loadBalancer.ingress]
    if ingress:
        lines.append(f"LoadBalancer Ingress:\t{', '.join(ingress)}")
    for port in spec.ports:
        lines += _port(port, endpoints)
    lines.append(f"Session Affinity:\t{spec.sessionAffinity or 'None'}")
    if spec.externalTrafficPolicy:
        lines.append(f"External Traffic Policy:\t{spec.externalTrafficPolicy}")
    if spec.internalTrafficPolicy:
        lines.append(f"Internal Traffic Policy:\t{spec.internalTrafficPolicy}")
    return [*lines, *events(found_events, now_s)]


def _port(port: Any, endpoints: Any | None) -> Lines:
    name, protocol = port.name or UNSET, port.protocol or "TCP"
    lines = [f"Port:\t{name}\t{port.port}/{protocol}", f"TargetPort:\t{int_or_string(port.targetPort)}/{protocol}"]
    if port.nodePort:
        lines.append(f"NodePort:\t{name}\t{port.nodePort}/{protocol}")
    behind = endpoint_addresses(endpoints, port.name) if endpoints is not None else NONE
    return [*lines, f"Endpoints:\t{'' if behind == NONE else behind}"]
