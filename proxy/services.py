"""What a node must listen on for a Service, and where each listener's connections go: pure.

The rules are those of kube-proxy (the Service and EndpointSlice API conventions, KEP-1669 for terminating endpoints,
KEP-2086 for the traffic policies), one function each, so that any node's proxy does the same with the same objects.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any

from protos.k8s.core_v1_pb2 import Endpoints, Service, ServicePort
from protos.k8s.discovery_v1_pb2 import EndpointSlice
from proxy.balancer import Backend, Policy

SERVICE_LABEL = "kubernetes.io/service-name"
"""Names the service that an EndpointSlice belongs to."""

POLICY_ANNOTATION = "knarr.dev/balance"
"""On a Service: ``round-robin`` (as if absent), ``random`` or ``least-connections``."""

AFFINITY_S_DEFAULT = 10_800
"""``sessionAffinityConfig.clientIP.timeoutSeconds`` when absent, seconds (Service API)."""

ANY_IPV4 = "0.0.0.0"
NOBODY = ("0.0.0.0/32",)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of one service port, with its conditions read as the EndpointSlice API says."""

    backend: Backend
    ready: bool
    serving: bool
    terminating: bool


@dataclass(frozen=True, slots=True)
class Listener:
    """An address to listen on and the backends behind it. No backends: the address must refuse connections."""

    namespace: str
    service: str
    port_name: str
    protocol: str
    address: str
    port: int
    role: str  # ClusterIP, NodePort, LoadBalancer or ExternalIP
    backends: tuple[Backend, ...] = ()
    policy: Policy = Policy.ROUND_ROBIN
    affinity_s: int = 0
    sources: tuple[str, ...] = ()  # CIDRs of the clients that are let in; empty: all

    @property
    def endpoint(self) -> tuple[str, str, int]:
        """What can be held only once on a node: protocol, address, port."""
        return (self.protocol, self.address, self.port)


def service_of(slice_: EndpointSlice) -> str:
    """The key of the service that a slice belongs to; of none, a key that no service has."""
    return f"{slice_.metadata.namespace}/{slice_.metadata.labels.get(SERVICE_LABEL, '')}"


def plan_listeners(
    service: Service, slices: Sequence[EndpointSlice], endpoints: Endpoints | None = None, node: str = ""
) -> list[Listener]:
    """The listeners of one service on the node named ``node``. ``endpoints`` is used when there are no slices.

    Headless and ExternalName services have none: clients reach their pods without us.
    """
    spec = service.spec
    if spec.type == "ExternalName" or spec.clusterIP == "None":
        return []
    listeners = []
    for port in spec.ports:
        candidates = _candidates(service, port, slices, endpoints)
        for role, address, number in _addresses(service, port):
            usable = _usable(candidates, address, node if _is_local(service, role) else "")
            listeners.append(_listener(service, port, role, address, number, usable))
    return listeners


def _listener(
    service: Service, port: ServicePort, role: str, address: str, number: int, backends: tuple[Backend, ...]
) -> Listener:
    spec = service.spec
    return Listener(
        namespace=service.metadata.namespace,
        service=service.metadata.name,
        port_name=port.name,
        protocol=port.protocol or "TCP",
        address=address,
        port=number,
        role=role,
        backends=backends,
        policy=policy_of(service),
        affinity_s=affinity_of(service),
        sources=_sources(spec.loadBalancerSourceRanges) if role == "LoadBalancer" else (),
    )


def _sources(ranges: Iterable[str]) -> tuple[str, ...]:
    """The CIDRs that are usable. When none of several is, nobody is let in: a typing error must not open a service."""
    written = [text.strip() for text in ranges]
    return tuple(text for text in written if is_network(text)) or (NOBODY if written else ())


def _addresses(service: Service, port: ServicePort) -> list[tuple[str, str, int]]:
    """(role, address, port) of everything that one service port is reached by, each address once."""
    spec = service.spec
    found = [("ClusterIP", ip, port.port) for ip in (spec.clusterIPs or [spec.clusterIP]) if ip]
    found += [("ExternalIP", ip, port.port) for ip in spec.externalIPs]
    if spec.type == "LoadBalancer":
        ingress = service.status.loadBalancer.ingress
        found += [("LoadBalancer", each.ip, port.port) for each in ingress if each.ip and each.ipMode != "Proxy"]
    if spec.type in ("NodePort", "LoadBalancer") and port.nodePort:
        found.append(("NodePort", ANY_IPV4, port.nodePort))
    usable = [each for each in reversed(found) if is_ip(each[1]) and is_port(each[2])]
    unique = {(address, number): (role, address, number) for role, address, number in usable}
    return list(reversed(unique.values()))


def is_port(number: int) -> bool:
    """Whether a TCP or UDP port may have this number."""
    return 0 < number < 1 << 16


def is_network(text: str) -> bool:
    """Whether ``text`` is a CIDR."""
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=4096)
def is_ip(text: str) -> bool:
    """Whether ``text`` is an IPv4 or IPv6 address. Anything else would be looked up as a name when it is used."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_local(service: Service, role: str) -> bool:
    """Whether only this node's endpoints may serve: internalTrafficPolicy for the cluster IP, external for the rest."""
    spec = service.spec
    policy = spec.internalTrafficPolicy if role == "ClusterIP" else spec.externalTrafficPolicy
    return policy == "Local"


def _usable(endpoints: Iterable[Endpoint], address: str, node: str) -> tuple[Backend, ...]:
    """The ready endpoints; when there are none, those that still serve while they terminate (KEP-1669).

    Only of the address's family, and only on ``node`` when that is given. Sorted: equal inputs, equal plans.
    """
    near = [e for e in endpoints if _same_family(e.backend.address, address) and (not node or e.backend.node == node)]
    chosen = [e.backend for e in near if e.ready] or [e.backend for e in near if e.serving and e.terminating]
    unique = {(backend.address, backend.port): backend for backend in chosen}
    return tuple(unique[key] for key in sorted(unique))


def _same_family(one: str, other: str) -> bool:
    return (":" in one) == (":" in other)


def _candidates(
    service: Service, port: ServicePort, slices: Sequence[EndpointSlice], endpoints: Endpoints | None
) -> list[Endpoint]:
    everyone = service.spec.publishNotReadyAddresses
    if slices or endpoints is None:
        return [found for each in slices for found in _of_slice(each, port, everyone)]
    return _of_endpoints(endpoints, port, everyone)


def _of_slice(slice_: EndpointSlice, port: ServicePort, everyone: bool) -> Iterable[Endpoint]:
    numbers = [each.port for each in slice_.ports if _serves(each, port) and is_port(each.port)]
    for endpoint in slice_.endpoints:
        if not endpoint.addresses or not is_ip(endpoint.addresses[0]):
            continue
        conditions = endpoint.conditions
        ready = not conditions.HasField("ready") or conditions.ready  # absent means ready (EndpointConditions)
        serving = conditions.serving if conditions.HasField("serving") else ready
        for number in numbers:
            # Addresses of one endpoint are interchangeable: consumers use the first (Endpoint.addresses).
            backend = Backend(endpoint.addresses[0], number, _pod(endpoint.targetRef), endpoint.nodeName)
            yield Endpoint(backend, ready or everyone, serving, conditions.terminating)


def _of_endpoints(endpoints: Endpoints, port: ServicePort, everyone: bool) -> list[Endpoint]:
    found = []
    for subset in endpoints.subsets:
        numbers = [each.port for each in subset.ports if _serves(each, port) and is_port(each.port)]
        for ready, addresses in ((True, subset.addresses), (everyone, subset.notReadyAddresses)):
            for address in filter(lambda each: is_ip(each.ip), addresses):
                pod, node = _pod(address.targetRef), address.nodeName
                found += [Endpoint(Backend(address.ip, n, pod, node), ready, ready, False) for n in numbers]
    return found


def _serves(endpoint_port: Any, port: ServicePort) -> bool:
    """The endpoints' port belongs to the service's port: same name (or both none), same protocol."""
    same_protocol = (endpoint_port.protocol or "TCP") == (port.protocol or "TCP")
    return same_protocol and endpoint_port.name == port.name


def _pod(reference: Any) -> str:
    return f"{reference.namespace}/{reference.name}" if reference.kind == "Pod" else ""


def policy_of(service: Service) -> Policy:
    """The balancing policy that the service asks for; an unknown word is as good as none."""
    try:
        return Policy(service.metadata.annotations.get(POLICY_ANNOTATION, Policy.ROUND_ROBIN))
    except ValueError:
        return Policy.ROUND_ROBIN


def affinity_of(service: Service) -> int:
    """How long a client keeps its backend, seconds; 0 without session affinity."""
    if service.spec.sessionAffinity != "ClientIP":
        return 0
    return service.spec.sessionAffinityConfig.clientIP.timeoutSeconds or AFFINITY_S_DEFAULT
