"""A service, with the endpoints behind each of its ports; and those endpoints themselves."""

from collections.abc import Iterator, Sequence
from typing import Any

from control.api.printers.parts import NONE, UNSET, address, first_of, int_or_string, joined, labels
from ctl.describe.parts import Lines, events, head, indented, table


def describe_service(service: Any, slices: Sequence[Any], found_events: Sequence[Any] | None, now_s: float) -> Lines:
    """Everything a person asks of a service. ``slices``: its EndpointSlices."""
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
    ingress = [_ingress(each) for each in service.status.loadBalancer.ingress]
    if ingress:
        lines.append(f"LoadBalancer Ingress:\t{', '.join(ingress)}")
    for port in spec.ports:
        lines += _port(port, slices)
    lines.append(f"Session Affinity:\t{spec.sessionAffinity or 'None'}")
    if spec.externalTrafficPolicy:
        lines.append(f"External Traffic Policy:\t{spec.externalTrafficPolicy}")
    if spec.internalTrafficPolicy:
        lines.append(f"Internal Traffic Policy:\t{spec.internalTrafficPolicy}")
    return [*lines, *events(found_events, now_s)]


def _ingress(each: Any) -> str:
    """The address, and how connections to it arrive."""
    mode = f" ({each.ipMode})" if each.HasField("ipMode") else ""
    return f"{each.ip}{mode}" if each.ip else str(each.hostname)


def _port(port: Any, slices: Sequence[Any]) -> Lines:
    name, protocol = port.name or UNSET, port.protocol or "TCP"
    lines = [f"Port:\t{name}\t{port.port}/{protocol}", f"TargetPort:\t{int_or_string(port.targetPort)}/{protocol}"]
    if port.nodePort:
        lines.append(f"NodePort:\t{name}\t{port.nodePort}/{protocol}")
    behind = list(_ready_addresses(port.name, slices))
    return [*lines, f"Endpoints:\t{first_of(behind) if behind else '' if slices else NONE}"]


def _ready_addresses(port_name: str, slices: Sequence[Any]) -> Iterator[str]:
    """``ip:port`` of those that take connections to one port, in the slices' order."""
    for slice_ in slices:
        for port in slice_.ports:
            if port.name == port_name:
                for endpoint in slice_.endpoints:
                    if endpoint.conditions.ready or not endpoint.conditions.HasField("ready"):
                        yield from (address(each, port.port) for each in endpoint.addresses)


def describe_endpoints(endpoints: Any, found_events: Sequence[Any] | None, now_s: float) -> Lines:
    """The addresses behind a service, ready and not."""
    lines = [*head(endpoints), "Subsets:"]
    for subset in endpoints.subsets:
        ready, waiting = ([each.ip for each in found] for found in (subset.addresses, subset.notReadyAddresses))
        lines += [f"  Addresses:\t{joined(ready)}", f"  NotReadyAddresses:\t{joined(waiting)}"]
        if subset.ports:
            ports = [(port.name or UNSET, str(port.port), port.protocol) for port in subset.ports]
            lines += ["  Ports:", *indented(1, table([("Name", "Port", "Protocol"), *ports]))]
        lines.append("")
    return [*lines, *events(found_events, now_s)]
