"""Informers and leader election against a real apiserver on etcd, through restarts of it."""

import asyncio
from typing import Any

import pytest

from control.api import meta
from control.api.codec import from_json
from control.client import Client, Informer, LeaderElector, errors
from protos.k8s import coordination_v1_pb2 as coordination
from protos.k8s import core_v1_pb2 as core


@pytest.fixture
def store_kind() -> str:
    return "etcd"


def config_map(name: str, **labels: str) -> core.ConfigMap:
    return from_json(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default", "labels": labels}}
    )


class Recorder:
    """A handler that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str | None, str | None]] = []
        self._changed = asyncio.Event()

    def __call__(self, old: Any, new: Any) -> None:
        self.heard.append((old and old.metadata.name, new and new.metadata.name))
        self._changed.set()

    async def until(self, count: int) -> list[tuple[str | None, str | None]]:
        async with asyncio.timeout(15):
            while len(self.heard) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.heard


async def test_an_informer_follows_and_tells_in_order(client: Client) -> None:
    await client.create(config_map("a", color="red"))
    informer, recorder = Informer(client, core.ConfigMap), Recorder()
    informer.add_handler(recorder)
    informer.add_index("color", lambda obj: [obj.metadata.labels.get("color", "")])
    running = asyncio.create_task(informer.run())
    await informer.synced()
    assert informer.get("default/a") is not None and len(informer.list()) == 1
    made = await client.create(config_map("b", color="red"))
    assert await recorder.until(2) == [(None, "a"), (None, "b")]
    assert [obj.metadata.name for obj in informer.by_index("color", "red")] == ["a", "b"]
    made.metadata.labels["color"] = "blue"
    await client.update(made)
    await client.delete(core.ConfigMap, "a", namespace="default")
    assert (await recorder.until(4))[2:] == [("b", "b"), ("a", None)]
    assert informer.by_index("color", "red") == []
    late = Recorder()
    informer.add_handler(late)
    assert late.heard == [(None, "b")]
    running.cancel()


async def test_an_informer_outlives_its_server_and_tells_only_differences(
    server: Any, make_server: Any, client: Client
) -> None:
    for name in ("a", "b"):
        await client.create(config_map(name))
    informer, recorder = Informer(client, core.ConfigMap), Recorder()
    informer.add_handler(recorder)
    running = asyncio.create_task(informer.run())
    await recorder.until(2)
    await server.stop()
    other = make_server(server.store_url)
    await other.start()
    async with Client(other.address) as meanwhile:
        await meanwhile.delete(core.ConfigMap, "a", namespace="default")
        await meanwhile.create(config_map("c"))
    await other.stop()
    await server.start()
    assert sorted((await recorder.until(4))[2:], key=str) == [("a", None), (None, "c")]
    running.cancel()


async def test_one_leads_and_another_takes_over_when_it_stops(client: Client) -> None:
    order: list[str] = []
    led = asyncio.Event()

    def elector(identity: str) -> LeaderElector:
        return LeaderElector(client, "test", identity, lease_s=1, renew_deadline_s=0.8, retry_s=0.1)

    async def lead(identity: str) -> None:
        order.append(identity)
        led.set()
        await asyncio.Event().wait()

    first, second = elector("one"), elector("two")
    one = asyncio.create_task(first.run(lambda: lead("one")))
    async with asyncio.timeout(10):
        await led.wait()
    led.clear()
    two = asyncio.create_task(second.run(lambda: lead("two")))
    lease = await client.get(coordination.Lease, "test", namespace="kube-system")
    assert lease.spec.holderIdentity == "one" and first.is_leader and not second.is_leader
    one.cancel()
    async with asyncio.timeout(10):
        await led.wait()
    assert order == ["one", "two"] and second.is_leader
    stolen = await client.get(coordination.Lease, "test", namespace="kube-system")
    stolen.metadata.resourceVersion = ""
    stolen.spec.holderIdentity = "thief"
    await client.update(stolen)
    led.clear()
    async with asyncio.timeout(10):
        await led.wait()
    assert order == ["one", "two", "two"]
    two.cancel()


async def test_a_server_that_is_not_there_is_told_with_its_address() -> None:
    async with Client("127.0.0.1:1", timeout_s=5) as client:
        with pytest.raises(errors.Unavailable, match=r"the apiserver at 127.0.0.1:1 cannot be reached"):
            await client.get(core.Pod, "x", namespace="default")


def test_conditions_keep_their_transition_time_while_the_status_stays() -> None:
    pod = core.Pod()
    assert meta.set_condition(pod.status.conditions, "Ready", "True", "A")
    pod.status.conditions[0].lastTransitionTime.seconds = 1
    assert meta.set_condition(pod.status.conditions, "Ready", "True", "B")
    assert pod.status.conditions[0].lastTransitionTime.seconds == 1
    assert not meta.set_condition(pod.status.conditions, "Ready", "True", "B")
    assert meta.set_condition(pod.status.conditions, "Ready", "False")
    assert pod.status.conditions[0].lastTransitionTime.seconds > 1 and not meta.pod_is_ready(pod)
