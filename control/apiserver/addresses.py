"""Which cluster IP and node ports a service gets. Pure: what is taken is passed in.

Automatic choices start at a random place, so that a deleted service's address is not handed out again at once.
"""

import ipaddress
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from control.api.errors import Cause, InternalError
from control.api.validation.service import HEADLESS, NODE_PORTS
from protos.k8s.core_v1_pb2 import Service

NODE_PORT_RANGE = range(30000, 32768)


class NotAvailable(Exception):
    """An address or port cannot be had; ``cause`` names the field."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.message)
        self.cause = cause


@dataclass
class Taken:
    """Addresses and (protocol, port) pairs in use by other services."""

    ips: set[str] = field(default_factory=set)
    node_ports: set[tuple[str, int]] = field(default_factory=set)

    @classmethod
    def by(cls, services: Iterable[Service]) -> "Taken":
        """What ``services`` hold."""
        taken = cls()
        for service in services:
            taken.add(service)
        return taken

    def add(self, service: Service) -> None:
        """Count what one service holds."""
        self.ips.update(ip for ip in (service.spec.clusterIP, *service.spec.clusterIPs) if ip not in ("", HEADLESS))
        self.node_ports.update((port.protocol, port.nodePort) for port in service.spec.ports if port.nodePort)


class Allocator:
    """Chooses from a service CIDR and a node port range. ``choose(n)`` gives the place to start, in [0, n)."""

    def __init__(self, cidr: str, choose: Callable[[int], int] = random.randrange) -> None:
        self.network = ipaddress.ip_network(cidr)
        self._choose = choose
        # Not given out: the network's own address, and in IPv4 the broadcast address.
        self._count = self.network.num_addresses - (2 if self.network.version == 4 else 1)
        if self._count < 1:
            raise ValueError(f"the service range {cidr} has no address to give: use a larger one, such as 10.96.0.0/16")

    @property
    def first(self) -> str:
        """The first address: the ``kubernetes`` service's."""
        return str(self.network[1])

    def allocate(self, service: Service, taken: Taken, old: Service | None = None) -> None:
        """Fill in the cluster IP and node ports that ``service`` needs. Raises NotAvailable, InternalError when full.

        ``old``: the service as it was; what it holds stays its own, and is kept where the new one leaves it open.
        """
        if old is not None:
            _inherit(service, old)
        own = Taken.by([old]) if old is not None else Taken()
        self._allocate_ip(service, taken, own)
        self._allocate_node_ports(service, taken, own)

    def _allocate_ip(self, service: Service, taken: Taken, own: Taken) -> None:
        spec = service.spec
        if spec.type == "ExternalName":
            for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                spec.ClearField(name)
            return
        if not spec.clusterIP and spec.clusterIPs:
            spec.clusterIP = spec.clusterIPs[0]
        if not spec.clusterIP:
            spec.clusterIP = self._free_ip(taken)
        elif spec.clusterIP != HEADLESS and spec.clusterIP not in own.ips:
            self._check_ip(spec.clusterIP, taken)
        if not spec.clusterIPs:
            spec.clusterIPs.append(spec.clusterIP)
        if not spec.ipFamilies:
            spec.ipFamilies.append(f"IPv{self.network.version}")
        spec.ipFamilyPolicy = spec.ipFamilyPolicy or "SingleStack"

    def _check_ip(self, text: str, taken: Taken) -> None:
        try:
            inside = ipaddress.ip_address(text) in self.network
        except ValueError:
            return  # validation tells it better
        if not inside:
            raise _refused("spec.clusterIP", text, f"the provided IP is not in the service range {self.network}")
        if text in taken.ips:
            raise _refused("spec.clusterIP", text, "provided IP is already allocated")

    def _free_ip(self, taken: Taken) -> str:
        for offset in _around(self._choose(self._count), self._count):
            ip = str(self.network[1 + offset])
            if ip not in taken.ips and ip != self.first:
                return ip
        raise InternalError(f"the service range {self.network} is full: delete services or use a larger range")

    def _allocate_node_ports(self, service: Service, taken: Taken, own: Taken) -> None:
        wanted = _wants_node_ports(service)
        for index, port in enumerate(service.spec.ports):
            claim = (port.protocol, port.nodePort)
            if port.nodePort and claim not in own.node_ports:
                self._check_node_port(f"spec.ports[{index}].nodePort", claim, taken)
            elif not port.nodePort and wanted:
                port.nodePort = self._free_node_port(port.protocol, taken, own)
            if port.nodePort:
                taken.node_ports.add((port.protocol, port.nodePort))

    def _check_node_port(self, path: str, claim: tuple[str, int], taken: Taken) -> None:
        if claim[1] not in NODE_PORT_RANGE:
            first, last = NODE_PORT_RANGE[0], NODE_PORT_RANGE[-1]
            raise _refused(path, claim[1], f"provided port is not in the valid range. The range is {first}-{last}")
        if claim in taken.node_ports:
            raise _refused(path, claim[1], "provided port is already allocated")

    def _free_node_port(self, protocol: str, taken: Taken, own: Taken) -> int:
        for offset in _around(self._choose(len(NODE_PORT_RANGE)), len(NODE_PORT_RANGE)):
            claim = (protocol, NODE_PORT_RANGE[offset])
            if claim not in taken.node_ports and claim not in own.node_ports:
                return claim[1]
        raise InternalError("all node ports are taken: delete services of type NodePort or LoadBalancer")


def _wants_node_ports(service: Service) -> bool:
    spec = service.spec
    if spec.type == "LoadBalancer":
        return spec.allocateLoadBalancerNodePorts or not spec.HasField("allocateLoadBalancerNodePorts")
    return spec.type == "NodePort"


def _inherit(new: Service, old: Service) -> None:
    """An update that leaves addresses open keeps the old ones; a type without node ports drops the inherited ones."""
    if not new.spec.clusterIP and old.spec.type != "ExternalName" and new.spec.type != "ExternalName":
        new.spec.clusterIP = old.spec.clusterIP
        new.spec.clusterIPs[:] = old.spec.clusterIPs
    held = {(port.protocol, port.port): port.nodePort for port in old.spec.ports}
    for port in new.spec.ports:
        inherited = held.get((port.protocol, port.port), 0)
        if new.spec.type not in NODE_PORTS:
            if port.nodePort == inherited and old.spec.type in NODE_PORTS:
                port.ClearField("nodePort")
        elif not port.nodePort and inherited:
            port.nodePort = inherited


def _around(start: int, count: int) -> Iterator[int]:
    """0..count-1, once each, beginning at ``start``."""
    yield from range(start, count)
    yield from range(start)


def _refused(path: str, value: str | int, text: str) -> NotAvailable:
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    return NotAvailable(Cause("FieldValueInvalid", f"Invalid value: {shown}: {text}", path))
