"""Which pods serve a service: the Endpoints object, all addresses in one place. ``desired_subsets`` is pure."""

import logging
from collections.abc import Iterable

from control.api import meta
from control.api.selectors import from_labels
from control.client import errors
from control.controllers.controller import Controller, Environment
from control.controllers.serving import Ports, ports_of, serves
from protos.k8s import core_v1_pb2 as core

log = logging.getLogger(__name__)

HEADLESS = "service.kubernetes.io/headless"
SKIP_MIRROR = "endpointslice.kubernetes.io/skip-mirror"


def desired_subsets(service: core.Service, pods: Iterable[core.Pod]) -> list[core.EndpointSubset]:
    """The subsets of ``service``: pods whose ports resolve alike share one. Sorted: equal input gives equal output.

    Terminating and finished pods are left out; unready ones are listed apart unless the service publishes them.
    """
    groups: dict[Ports, list[core.Pod]] = {}
    for pod in pods:
        if serves(pod) and not meta.is_deleting(pod):
            groups.setdefault(ports_of(service, pod), []).append(pod)
    return [_subset(service, ports, groups[ports]) for ports in sorted(groups)]


def _subset(service: core.Service, ports: Ports, pods: list[core.Pod]) -> core.EndpointSubset:
    subset = core.EndpointSubset()
    for pod in sorted(pods, key=lambda p: (p.status.podIP, p.metadata.uid)):
        up = service.spec.publishNotReadyAddresses or meta.pod_is_ready(pod)
        address = (subset.addresses if up else subset.notReadyAddresses).add(ip=pod.status.podIP)
        if pod.spec.nodeName:
            address.nodeName = pod.spec.nodeName
        if pod.spec.hostname and pod.spec.subdomain == service.metadata.name:
            address.hostname = pod.spec.hostname
        address.targetRef.kind, address.targetRef.namespace = "Pod", pod.metadata.namespace
        address.targetRef.name, address.targetRef.uid = pod.metadata.name, pod.metadata.uid
    for name, protocol, number, app in ports:
        port = subset.ports.add(port=number, protocol=protocol)
        if name:
            port.name = name
        if app:
            port.appProtocol = app
    return subset


def desired_endpoints(service: core.Service, pods: Iterable[core.Pod]) -> core.Endpoints:
    """The Endpoints object of ``service``."""
    endpoints = core.Endpoints(subsets=desired_subsets(service, pods))
    endpoints.metadata.name, endpoints.metadata.namespace = service.metadata.name, service.metadata.namespace
    endpoints.metadata.labels.update(service.metadata.labels)
    if service.spec.clusterIP == "None":
        endpoints.metadata.labels[HEADLESS] = ""
    return endpoints


class EndpointsController(Controller):
    """Keeps one Endpoints object per service with a selector; removes it with the service."""

    name = "endpoints"

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self.services = env.informer(core.Service)
        self.pods = env.informer(core.Pod)
        self.endpoints = env.informer(core.Endpoints)
        self.services.add_handler(self.enqueue_either)
        self.endpoints.add_handler(self.enqueue_either)
        self.pods.add_handler(env.services_of_pods(self.queue.add))

    async def sync(self, key: str) -> None:
        """Bring the Endpoints of service ``key`` up to date."""
        service, current = self.services.get(key), self.endpoints.get(key)
        if service is None:
            await self._remove(key, current)
        elif service.spec.selector and service.spec.type != "ExternalName":
            selector = from_labels(service.spec.selector)
            pods = self.env.pods_in(service.metadata.namespace)
            await self._write(
                desired_endpoints(service, (p for p in pods if selector.matches(p.metadata.labels))), current
            )

    async def _write(self, desired: core.Endpoints, current: core.Endpoints | None) -> None:
        if current is None:
            await self.client.create(desired)
            return
        same = list(current.subsets) == list(desired.subsets) and current.metadata.labels == desired.metadata.labels
        if not same:
            updated = meta.copy_of(current)
            del updated.subsets[:]
            updated.subsets.extend(desired.subsets)
            updated.metadata.labels.clear()
            updated.metadata.labels.update(desired.metadata.labels)
            await self.client.update(updated)

    async def _remove(self, key: str, current: core.Endpoints | None) -> None:
        if current is None or (key == "default/kubernetes"):
            return
        namespace, name = meta.split_key(key)
        try:
            await self.client.delete(core.Endpoints, name, namespace=namespace, uid=current.metadata.uid)
        except (errors.NotFound, errors.Conflict):
            log.debug("endpoints already gone", extra={"endpoints": key})
