"""Endpoints and EndpointSlices: addresses and ports."""

import ipaddress
from typing import Any

from control.api.validation import names
from control.api.validation.faults import Faults
from protos.k8s import core_v1_pb2 as core
from protos.k8s import discovery_v1_pb2 as discovery

PROTOCOLS = ("TCP", "UDP", "SCTP")
ADDRESS_TYPES = ("IPv4", "IPv6", "FQDN")
ENDPOINTS_MAX, ADDRESSES_MAX, PORTS_MAX = 1000, 100, 100


def validate_endpoints(endpoints: core.Endpoints, faults: Faults) -> None:
    """Every subset has addresses, and ports in range."""
    for index, subset in enumerate(endpoints.subsets):
        path = f"subsets[{index}]"
        if not subset.addresses and not subset.notReadyAddresses:
            faults.required(path, "must specify `addresses` or `notReadyAddresses`")
        for name in ("addresses", "notReadyAddresses"):
            for at, address in enumerate(getattr(subset, name)):
                _validate_address(address.ip, f"{path}.{name}[{at}].ip", faults)
        _validate_ports(subset.ports, f"{path}.ports", faults)


def _validate_address(text: str, path: str, faults: Faults) -> None:
    problems = names.ip(text)
    faults.each_invalid(path, text, problems)
    if problems:
        return
    address = ipaddress.ip_address(text)
    if address.is_unspecified:
        faults.invalid(path, text, "may not be unspecified (0.0.0.0)")
    if address.is_loopback:
        faults.invalid(path, text, "may not be in the loopback range (127.0.0.0/8)")
    if address.is_link_local:
        faults.invalid(path, text, "may not be in the link-local range (169.254.0.0/16)")


def _validate_ports(ports: Any, path: str, faults: Faults) -> None:
    for index, port in enumerate(ports):
        at = f"{path}[{index}]"
        if len(ports) > 1 and not port.name:
            faults.required(f"{at}.name")
        faults.each_invalid(f"{at}.port", port.port, names.port(port.port))
        faults.one_of(f"{at}.protocol", port.protocol, PROTOCOLS)


def validate_endpoint_slice(obj: discovery.EndpointSlice, faults: Faults) -> None:
    """An address type, endpoints of it, and ports with distinct names."""
    faults.one_of("addressType", obj.addressType, ADDRESS_TYPES)
    if len(obj.endpoints) > ENDPOINTS_MAX:
        faults.too_long("endpoints", f"must have at most {ENDPOINTS_MAX} items")
    for index, endpoint in enumerate(obj.endpoints):
        path = f"endpoints[{index}].addresses"
        if not endpoint.addresses:
            faults.required(path, "must contain at least 1 address")
        if len(endpoint.addresses) > ADDRESSES_MAX:
            faults.too_long(path, f"must have at most {ADDRESSES_MAX} items")
        for at, address in enumerate(endpoint.addresses):
            _validate_slice_address(obj.addressType, address, f"{path}[{at}]", faults)
    _validate_slice_ports(obj, faults)


def _validate_slice_address(type_: str, text: str, path: str, faults: Faults) -> None:
    if type_ == "FQDN":
        faults.each_invalid(path, text, names.dns_subdomain(text))
        return
    _validate_address(text, path, faults)
    if not names.ip(text) and f"IPv{ipaddress.ip_address(text).version}" != type_:
        faults.invalid(path, text, f"must be an {type_} address, as addressType says")


def _validate_slice_ports(obj: discovery.EndpointSlice, faults: Faults) -> None:
    if len(obj.ports) > PORTS_MAX:
        faults.too_long("ports", f"must have at most {PORTS_MAX} items")
    seen = set()
    for index, port in enumerate(obj.ports):
        path = f"ports[{index}]"
        if port.name in seen:
            faults.duplicate(f"{path}.name", port.name)
        seen.add(port.name)
        if port.HasField("port"):
            faults.each_invalid(f"{path}.port", port.port, names.port(port.port))
        faults.one_of(f"{path}.protocol", port.protocol, PROTOCOLS)


def validate_endpoint_slice_update(new: discovery.EndpointSlice, old: discovery.EndpointSlice, faults: Faults) -> None:
    """The address type never changes."""
    faults.immutable("addressType", new.addressType, old.addressType)
