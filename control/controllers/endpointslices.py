"""Which pods serve a service, in slices of at most a hundred endpoints: a change rewrites one slice, not the list.

``plan_slices`` is pure. It leaves endpoints in the slices they are in, so one pod's change costs one write (Kubernetes'
EndpointSlice controller, KEP-752).
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from control.api import meta
from control.api.selectors import from_labels
from control.client import errors
from control.controllers.controller import Controller, Environment
from control.controllers.serving import Ports, ports_of, serves
from protos.k8s import core_v1_pb2 as core
from protos.k8s import discovery_v1_pb2 as discovery

log = logging.getLogger(__name__)

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
HEADLESS = "service.kubernetes.io/headless"
ZONE = "topology.kubernetes.io/zone"
ENDPOINTS_MAX = 100


@dataclass
class Plan:
    """Slices to write and to delete."""

    create: list[discovery.EndpointSlice] = field(default_factory=list)
    update: list[discovery.EndpointSlice] = field(default_factory=list)
    delete: list[discovery.EndpointSlice] = field(default_factory=list)


def endpoint_of(service: core.Service, pod: core.Pod, zone: str = "") -> discovery.Endpoint:
    """The endpoint of one pod. Terminating pods stay listed: they may be served until they are gone."""
    up, leaving = meta.pod_is_ready(pod), meta.is_deleting(pod)
    endpoint = discovery.Endpoint(addresses=[pod.status.podIP])
    endpoint.conditions.serving = up
    endpoint.conditions.terminating = leaving
    endpoint.conditions.ready = service.spec.publishNotReadyAddresses or (up and not leaving)
    if pod.spec.nodeName:
        endpoint.nodeName = pod.spec.nodeName
    if zone:
        endpoint.zone = zone
    if pod.spec.hostname and pod.spec.subdomain == service.metadata.name:
        endpoint.hostname = pod.spec.hostname
    endpoint.targetRef.kind, endpoint.targetRef.namespace = "Pod", pod.metadata.namespace
    endpoint.targetRef.name, endpoint.targetRef.uid = pod.metadata.name, pod.metadata.uid
    return endpoint


def plan_slices(
    service: core.Service, pods: Iterable[core.Pod], slices: Sequence[discovery.EndpointSlice], zones: dict[str, str]
) -> Plan:
    """What to write so that the slices of ``service`` list exactly its serving pods. ``zones``: node name to zone."""
    desired: dict[tuple[str, Ports], dict[str, discovery.Endpoint]] = {}
    for pod in sorted((pod for pod in pods if serves(pod)), key=lambda p: p.metadata.name):
        family = "IPv6" if ":" in pod.status.podIP else "IPv4"
        group = desired.setdefault((family, ports_of(service, pod)), {})
        group[pod.metadata.uid] = endpoint_of(service, pod, zones.get(pod.spec.nodeName, ""))
    plan = Plan()
    existing: dict[tuple[str, Ports], list[discovery.EndpointSlice]] = {}
    for item in sorted(slices, key=lambda s: s.metadata.name):
        existing.setdefault((item.addressType, _ports_in(item)), []).append(item)
    for group_key in sorted({*desired, *existing}):
        _plan_group(service, group_key, desired.get(group_key, {}), existing.get(group_key, []), plan)
    return plan


def _plan_group(
    service: core.Service,
    group_key: tuple[str, Ports],
    wanted: dict[str, discovery.Endpoint],
    slices: list[discovery.EndpointSlice],
    plan: Plan,
) -> None:
    """Keep each endpoint where it is, drop the gone, put the new where there is room, then open further slices."""
    left = dict(wanted)
    kept: list[list[discovery.Endpoint]] = []
    for item in slices:
        uids = [endpoint.targetRef.uid for endpoint in item.endpoints]
        kept.append([left.pop(uid) for uid in uids if uid in left])
    fresh = list(left.values())
    for entries in kept:
        room = ENDPOINTS_MAX - len(entries)
        entries.extend(fresh[:room])
        fresh = fresh[room:]
    for item, entries in zip(slices, kept, strict=True):
        if not entries:
            plan.delete.append(item)
        else:
            updated = _slice(service, group_key, entries, item)
            if updated != item:
                plan.update.append(updated)
    for start in range(0, len(fresh), ENDPOINTS_MAX):
        plan.create.append(_slice(service, group_key, fresh[start : start + ENDPOINTS_MAX], None))


def _slice(
    service: core.Service,
    group_key: tuple[str, Ports],
    endpoints: list[discovery.Endpoint],
    current: discovery.EndpointSlice | None,
) -> discovery.EndpointSlice:
    family, ports = group_key
    result = discovery.EndpointSlice()
    if current is not None:
        result.metadata.CopyFrom(current.metadata)
        result.metadata.labels.clear()
    else:
        result.metadata.generateName = f"{service.metadata.name}-"
        result.metadata.namespace = service.metadata.namespace
        result.metadata.ownerReferences.append(meta.owner_reference(service))
    result.metadata.labels.update({**service.metadata.labels, SERVICE_NAME: service.metadata.name, MANAGED_BY: MANAGER})
    if service.spec.clusterIP == "None":
        result.metadata.labels[HEADLESS] = ""
    result.addressType = family
    result.endpoints.extend(endpoints)
    for name, protocol, number, app in ports:
        port = result.ports.add(name=name, protocol=protocol, port=number)
        if app:
            port.appProtocol = app
    return result


def _ports_in(item: discovery.EndpointSlice) -> Ports:
    return tuple(sorted((port.name, port.protocol, port.port, port.appProtocol) for port in item.ports))


class EndpointSliceController(Controller):
    """Keeps the slices of every service with a selector; the garbage collector removes them with the service."""

    name = "endpointslices"

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self.services = env.informer(core.Service)
        self.slices = env.informer(discovery.EndpointSlice)
        self.nodes = env.informer(core.Node)
        self.pods = env.informer(core.Pod)
        self.slices.add_index("service", _service_key)
        self.services.add_handler(self.enqueue_either)
        self.slices.add_handler(self._slice_changed)
        self.pods.add_handler(env.services_of_pods(self.queue.add))

    def _slice_changed(self, old: discovery.EndpointSlice | None, new: discovery.EndpointSlice | None) -> None:
        for key in {key for item in (old, new) if item is not None for key in _service_key(item)}:
            self.queue.add(key)

    async def sync(self, key: str) -> None:
        """Bring the slices of service ``key`` up to date."""
        service = self.services.get(key)
        slices = self.slices.by_index("service", key)
        if service is None or meta.is_deleting(service) or not service.spec.selector:
            return
        selector = from_labels(service.spec.selector)
        pods = (p for p in self.env.pods_in(service.metadata.namespace) if selector.matches(p.metadata.labels))
        zones = {node.metadata.name: node.metadata.labels.get(ZONE, "") for node in self.nodes.list()}
        await self._execute(plan_slices(service, pods, slices, zones))

    async def _execute(self, plan: Plan) -> None:
        for item in plan.create:
            await self.client.create(item)
        for item in plan.update:
            await self.client.update(item)
        for item in plan.delete:
            try:
                await self.client.delete(
                    discovery.EndpointSlice,
                    item.metadata.name,
                    namespace=item.metadata.namespace,
                    uid=item.metadata.uid,
                )
            except errors.NotFound:
                log.debug("endpoint slice already gone", extra={"slice": meta.key(item)})


def _service_key(item: discovery.EndpointSlice) -> list[str]:
    name = item.metadata.labels.get(SERVICE_NAME, "")
    ours = item.metadata.labels.get(MANAGED_BY) == MANAGER
    return [f"{item.metadata.namespace}/{name}"] if name and ours else []
