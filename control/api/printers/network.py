"""Printers of discovery and networking: endpoint slices, network policies, ingresses."""

from typing import Any

from control.api.printers.model import Printer
from control.api.printers.parts import NONE, UNSET, age, first_of, selector


def _endpoint_slice(slice_: Any, now_s: float) -> list[str]:
    ports = [str(port.port) if port.HasField("port") else port.name or "*" for port in slice_.ports]
    addresses = [each for endpoint in slice_.endpoints for each in endpoint.addresses]
    return [
        slice_.metadata.name,
        slice_.addressType,
        first_of(ports) if ports else UNSET,
        first_of(addresses) if addresses else UNSET,
        age(slice_.metadata.creationTimestamp, now_s),
    ]


def _network_policy(policy: Any, now_s: float) -> list[str]:
    return [policy.metadata.name, selector(policy.spec.podSelector), age(policy.metadata.creationTimestamp, now_s)]


def _ingress(ingress: Any, now_s: float) -> list[str]:
    hosts = [rule.host or "*" for rule in ingress.spec.rules]
    return [
        ingress.metadata.name,
        ingress.spec.ingressClassName if ingress.spec.HasField("ingressClassName") else NONE,
        first_of(hosts) if hosts else "*",
        ",".join(each.ip or each.hostname for each in ingress.status.loadBalancer.ingress),
        "80, 443" if ingress.spec.tls else "80",
        age(ingress.metadata.creationTimestamp, now_s),
    ]


def _ingress_class(class_: Any, now_s: float) -> list[str]:
    reference = class_.spec.parameters
    group = f".{reference.aPIGroup}" if reference.aPIGroup else ""
    return [
        class_.metadata.name,
        class_.spec.controller,
        f"{reference.kind}{group}/{reference.name}" if class_.spec.HasField("parameters") else NONE,
        age(class_.metadata.creationTimestamp, now_s),
    ]


PRINTERS = {
    "endpointslices.discovery.k8s.io": Printer("NAME|ADDRESSTYPE|PORTS|ENDPOINTS|AGE", _endpoint_slice),
    "networkpolicies.networking.k8s.io": Printer("NAME|POD-SELECTOR|AGE", _network_policy),
    "ingresses.networking.k8s.io": Printer("NAME|CLASS|HOSTS|ADDRESS|PORTS|AGE", _ingress),
    "ingressclasses.networking.k8s.io": Printer("NAME|CONTROLLER|PARAMETERS|AGE", _ingress_class),
}
