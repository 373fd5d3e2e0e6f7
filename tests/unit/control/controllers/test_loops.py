"""The loops on a real apiserver and etcd: the state of the world is asserted, not the calls."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from control.api import meta
from control.client import Client
from control.client.events import EventRecorder
from control.controllers.controller import Environment
from control.controllers.deployment import DeploymentController
from control.controllers.endpoints import EndpointsController
from control.controllers.endpointslices import EndpointSliceController
from control.controllers.garbage import GarbageCollector
from control.controllers.node import NodeController
from control.controllers.podgc import PodGCController
from control.controllers.replication import ReplicaSets, ReplicationControllers
from control.controllers.servicelb import ServiceLBController
from control.scheduler.scheduler import Scheduler
from protos.k8s import apps_v1_pb2 as apps
from protos.k8s import core_v1_pb2 as core
from protos.k8s import discovery_v1_pb2 as discovery

Until = Callable[..., Any]


@pytest.fixture
async def controllers(client: Client) -> AsyncIterator[Environment]:
    """All controllers, running."""
    env = Environment(client)
    every = [
        ReplicationControllers(env),
        ReplicaSets(env),
        DeploymentController(env),
        EndpointsController(env),
        EndpointSliceController(env),
        ServiceLBController(env, "10.98.0.0/29"),
        NodeController(env, grace_s=1.0, eviction_timeout_s=0.5),
        PodGCController(env, quarantine_s=0.2),
        GarbageCollector(env),
    ]
    tasks = [asyncio.create_task(env.run()), *(asyncio.create_task(c.run()) for c in every)]
    try:
        yield env
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def pods(client: Client) -> list[core.Pod]:
    page = await client.list(core.Pod, "default")
    return [pod for pod in page.items if not meta.is_deleting(pod)]


async def exactly(client: Client, number: int) -> list[core.Pod] | None:
    found = await pods(client)
    return found if len(found) == number else None


async def mark_running(client: Client, pod: core.Pod, ip: str) -> None:
    pod.status.phase, pod.status.podIP = "Running", ip
    meta.set_condition(pod.status.conditions, "Ready", "True")
    await client.update_status(pod)


async def test_replication_from_creation_to_cascade(
    client: Client, controllers: Environment, rc: Any, until: Until
) -> None:
    rc.metadata.ClearField("uid")
    await client.create(rc)
    first = await until(lambda: exactly(client, 3))
    assert all(pod.metadata.ownerReferences[0].name == "web" for pod in first)
    await client.delete(core.Pod, first[0].metadata.name, "default")
    second = await until(lambda: exactly(client, 3))
    assert first[0].metadata.name not in {pod.metadata.name for pod in second}
    for number, pod in enumerate(second):
        await mark_running(client, pod, f"10.0.0.{number + 1}")
    await until(lambda: _status(client, ready=3))
    scaled = await client.get(core.ReplicationController, "web", "default")
    scaled.spec.replicas = 1
    await client.update(scaled)
    await until(lambda: exactly(client, 1))
    await until(lambda: _status(client, ready=1, generation=2))
    reasons = {event.reason for event in (await client.list(core.Event, "default")).items}
    assert {"SuccessfulCreate", "SuccessfulDelete"} <= reasons
    await client.delete(core.ReplicationController, "web", "default")
    await until(lambda: _none(client))


async def _none(client: Client) -> bool:
    return not await pods(client)


async def _status(client: Client, ready: int, generation: int = 1) -> bool:
    status = (await client.get(core.ReplicationController, "web", "default")).status
    return (status.replicas, status.readyReplicas, status.observedGeneration) == (ready, ready, generation)


async def test_replica_set_and_orphaning(client: Client, controllers: Environment, make: Any, until: Until) -> None:
    template = {"metadata": {"labels": {"app": "rs"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "rs"}}, "template": template}
    await client.create(
        make(
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "metadata": {"name": "rs", "namespace": "default"},
                "spec": spec,
            }
        )
    )
    made = await until(lambda: exactly(client, 2))
    await client.delete(apps.ReplicaSet, "rs", "default", propagation="Orphan")

    async def set_free() -> bool:
        found = await pods(client)
        return len(found) == 2 and not any(pod.metadata.ownerReferences for pod in found)

    await until(set_free)
    assert {p.metadata.name for p in await pods(client)} == {p.metadata.name for p in made}


async def test_deployment_rolls_from_one_image_to_the_next(
    client: Client, controllers: Environment, make: Any, until: Until
) -> None:
    template = {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "app:1"}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "d"}}, "template": template}
    metadata = {"name": "d", "namespace": "default"}
    await client.create(make({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}))

    async def rolled(image: str) -> bool:
        for number, pod in enumerate(await pods(client)):
            if not meta.pod_is_ready(pod):
                await mark_running(client, pod, f"10.0.0.{number + 1}")
        deployment = await client.get(apps.Deployment, "d", "default")
        found = {pod.spec.containers[0].image for pod in await pods(client)}
        status = deployment.status
        return found == {image} and status.updatedReplicas == status.replicas == status.availableReplicas == 2

    await until(lambda: rolled("app:1"))
    deployment = await client.get(apps.Deployment, "d", "default")
    deployment.spec.template.spec.containers[0].image = "app:2"
    await client.update(deployment)
    await until(lambda: rolled("app:2"))
    sets = (await client.list(apps.ReplicaSet, "default")).items
    assert sorted(rs.metadata.annotations["deployment.kubernetes.io/revision"] for rs in sets) == ["1", "2"]
    await client.delete(apps.Deployment, "d", "default")
    await until(lambda: _none(client))


async def test_foreground_deletion_waits_for_the_pods(
    client: Client, controllers: Environment, rc: Any, until: Until
) -> None:
    rc.metadata.ClearField("uid")
    await client.create(rc)
    await until(lambda: exactly(client, 3))
    await client.delete(core.ReplicationController, "web", "default", propagation="Foreground")

    async def all_gone() -> bool:
        owners = (await client.list(core.ReplicationController, "default")).items
        return not owners and await _none(client)

    await until(all_gone)


async def test_service_gets_endpoints_slices_and_address(
    client: Client, controllers: Environment, pod: Any, service: Any, until: Until
) -> None:
    web = service(type="LoadBalancer")
    web.metadata.ClearField("uid")
    web.spec.ClearField("clusterIP")
    await client.create(web)
    fresh = pod("p1", on="")
    for name in ("uid", "creationTimestamp"):
        fresh.metadata.ClearField(name)
    await mark_running(client, await client.create(fresh), "10.0.0.7")

    async def listed() -> bool:
        endpoints = await client.get(core.Endpoints, "web", "default")
        slices = (
            await client.list(discovery.EndpointSlice, "default", label_selector="kubernetes.io/service-name=web")
        ).items
        ips = [a.ip for s in endpoints.subsets for a in s.addresses]
        return ips == ["10.0.0.7"] and [e.addresses[0] for s in slices for e in s.endpoints] == ["10.0.0.7"]

    await until(listed)

    async def addressed() -> bool:
        status = (await client.get(core.Service, "web", "default")).status
        return [entry.ip for entry in status.loadBalancer.ingress] == ["10.98.0.1"]

    await until(addressed)
    await client.delete(core.Service, "web", "default")

    async def gone() -> bool:
        slices = (
            await client.list(discovery.EndpointSlice, "default", label_selector="kubernetes.io/service-name=web")
        ).items
        names = [e.metadata.name for e in (await client.list(core.Endpoints, "default")).items]
        return "web" not in names and not slices

    await until(gone)


async def test_silent_node_loses_its_pods_and_vanished_node_too(
    client: Client, controllers: Environment, pod: Any, until: Until
) -> None:
    node = await client.create(core.Node(metadata={"name": "n1"}))
    meta.set_condition(node.status.conditions, "Ready", "True")
    await client.update_status(node)
    hasty = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 1}
    for name, where in (("here", "n1"), ("nowhere", "n9")):
        fresh = pod(name, on=where, tolerations=[hasty])
        for field in ("uid", "creationTimestamp"):
            fresh.metadata.ClearField(field)
        await client.create(fresh)

    async def judged() -> bool:
        current = await client.get(core.Node, "n1")
        here = await client.get(core.Pod, "here", "default")
        names = {p.metadata.name for p in (await client.list(core.Pod, "default")).items}
        unknown = meta.condition_is(current.status.conditions, "Ready", "Unknown")
        return unknown and len(current.spec.taints) == 2 and meta.is_deleting(here) and "nowhere" not in names

    await until(judged)


async def test_scheduler_places_waits_and_tells_why(client: Client, pod: Any, until: Until) -> None:
    scheduler = asyncio.create_task(Scheduler(client).run())
    try:
        fresh = pod("p1", on="", ready=False, phase="Pending")
        for field in ("uid", "creationTimestamp"):
            fresh.metadata.ClearField(field)
        fresh.spec.containers[0].resources.requests["cpu"].string = "2"
        await client.create(fresh)

        async def told(text: str) -> bool:
            events = (await client.list(core.Event, "default")).items
            return any(e.reason == "FailedScheduling" and e.message == text for e in events)

        await until(lambda: told("no nodes available to schedule pods"))
        node = await client.create(core.Node(metadata={"name": "n1"}))
        for name, amount in (("cpu", "1"), ("memory", "1Gi"), ("pods", "10")):
            node.status.allocatable[name].string = amount
        meta.set_condition(node.status.conditions, "Ready", "True")
        node = await client.update_status(node)
        await until(lambda: told("0/1 nodes are available: 1 Insufficient cpu."))
        condition = meta.find_condition((await client.get(core.Pod, "p1", "default")).status.conditions, "PodScheduled")
        assert condition is not None and condition.reason == "Unschedulable"
        node.status.allocatable["cpu"].string = "2"
        await client.update_status(node)

        async def placed() -> bool:
            return (await client.get(core.Pod, "p1", "default")).spec.nodeName == "n1"

        await until(placed)
    finally:
        scheduler.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await scheduler


async def test_equal_events_are_counted(client: Client, rc: Any, until: Until) -> None:
    recorder = EventRecorder(client, "test", host="n1")
    sending = asyncio.create_task(recorder.run())
    for _ in range(3):
        recorder.warning(rc, "Testing", "again", "spec.template")

    async def counted() -> bool:
        events = (await client.list(core.Event, "default")).items
        return [(e.count, e.reason, e.source.host) for e in events] == [(3, "Testing", "n1")]

    try:
        await until(counted)
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
