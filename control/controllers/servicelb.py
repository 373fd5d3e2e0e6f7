"""Addresses for services of type LoadBalancer, from a range that every node's proxy listens on. ``plan_address`` is
pure.
"""

import ipaddress
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from control.api import meta
from control.controllers.controller import Controller, Environment
from protos.k8s import core_v1_pb2 as core

log = logging.getLogger(__name__)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Assignment:
    """The address a service should have, None for none; ``problem`` says why it cannot have what it wants."""

    address: str | None
    problem: str = ""


def plan_address(service: core.Service, taken: Iterable[str], network: Network) -> Assignment:
    """Which address ``service`` gets. ``taken``: those of other services.

    It keeps the one it has if that is still in the range; else the one it asks for (spec.loadBalancerIP); else the
    first free.
    """
    if service.spec.type != "LoadBalancer" or meta.is_deleting(service):
        return Assignment(None)
    used, asked = set(taken), service.spec.loadBalancerIP
    held = [entry.ip for entry in service.status.loadBalancer.ingress]
    if asked:
        return _asked(asked, used, network)
    if held and held[0] not in used and _inside(held[0], network):
        return Assignment(held[0])
    free = next((str(address) for address in network.hosts() if str(address) not in used), None)
    return Assignment(free, "" if free else f"no address is left in {network}")


def _asked(asked: str, used: set[str], network: Network) -> Assignment:
    if not _inside(asked, network):
        return Assignment(None, f"the requested address {asked} is not in {network}")
    if asked in used:
        return Assignment(None, f"the requested address {asked} belongs to another service")
    return Assignment(asked)


def _inside(text: str, network: Network) -> bool:
    try:
        return ipaddress.ip_address(text) in network
    except ValueError:
        return False


class ServiceLBController(Controller):
    """One worker, so that two services never get the same address."""

    name = "service"
    workers = 1

    def __init__(self, env: Environment, cidr: str) -> None:
        super().__init__(env)
        self.network = ipaddress.ip_network(cidr)
        self.services = env.informer(core.Service)
        self.services.add_handler(self._changed)
        # What was assigned and may not have come back through the watch yet.
        self._assigned: dict[str, str] = {}

    def _changed(self, old: core.Service | None, new: core.Service | None) -> None:
        if new is None and old is not None:
            self._assigned.pop(meta.key(old), None)
            self._retry_waiting()
        self.enqueue_either(old, new)

    def _retry_waiting(self) -> None:
        for service in self.services.list():
            if service.spec.type == "LoadBalancer" and not service.status.loadBalancer.ingress:
                self.queue.add(meta.key(service))

    async def sync(self, key: str) -> None:
        """Assign or take back the address of service ``key``."""
        service = self.services.get(key)
        if service is None:
            return
        plan = plan_address(service, self._taken(key), self.network)
        if plan.problem:
            self.recorder.warning(service, "AllocationFailed", plan.problem)
        held = [entry.ip for entry in service.status.loadBalancer.ingress]
        if held != ([plan.address] if plan.address else []):
            await self._write(service, plan.address)

    def _taken(self, key: str) -> set[str]:
        others = {meta.key(other): other for other in self.services.list() if meta.key(other) != key}
        seen = {entry.ip for other in others.values() for entry in other.status.loadBalancer.ingress}
        return seen | {address for other, address in self._assigned.items() if other in others}

    async def _write(self, service: core.Service, address: str | None) -> None:
        updated = meta.copy_of(service)
        del updated.status.loadBalancer.ingress[:]
        if address is not None:
            updated.status.loadBalancer.ingress.add(ip=address, ipMode="VIP")
            self._assigned[meta.key(service)] = address
        else:
            self._assigned.pop(meta.key(service), None)
        await self.client.update_status(updated)
        if address is not None:
            self.recorder.normal(service, "EnsuredLoadBalancer", f"Ensured load balancer at {address}")
