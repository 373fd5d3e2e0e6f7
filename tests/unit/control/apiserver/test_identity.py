"""Who calls and what they may do, over real mutual TLS."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from control.api.codec import from_json
from control.client import Client, errors
from protos.k8s import core_v1_pb2 as core
from protos.serving import TLS


@pytest.fixture
def store_kind() -> str:
    return "etcd"


@pytest.fixture
async def secure(store: Any, authority: Any, make_server: Any) -> AsyncIterator[Any]:
    server = make_server(store.url, authority.issue("kube-apiserver", "system:masters"))
    await server.start()
    yield server
    await server.stop()


def config_map(name: str) -> core.ConfigMap:
    return from_json({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}})


def node(name: str) -> core.Node:
    return from_json({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})


async def test_masters_may_do_everything(secure: Any, authority: Any) -> None:
    async with Client(secure.address, authority.issue("kubernetes-admin", "system:masters")) as client:
        assert (await client.create(config_map("a"))).metadata.uid


async def test_a_stranger_is_refused_by_name_verb_and_resource(secure: Any, authority: Any) -> None:
    async with Client(secure.address, authority.issue("alice", "people")) as client:
        with pytest.raises(errors.Forbidden) as caught:
            await client.get(core.ConfigMap, "a", namespace="default")
        assert caught.value.message == (
            'configmaps "a" is forbidden: User "alice" cannot get resource "configmaps" in API group "" '
            'in the namespace "default"'
        )


async def test_a_certificate_of_another_ca_does_not_connect(secure: Any, authority: Any, tmp_path: Any) -> None:
    other = type(authority)(tmp_path).issue("mallory", "system:masters")
    forged = TLS(other.cert, other.key, authority.ca)
    async with Client(secure.address, forged, timeout_s=5) as client:
        with pytest.raises((errors.Unavailable, errors.Timeout)):
            await client.list(core.Pod)


async def test_a_kubelet_writes_only_its_own_node(secure: Any, authority: Any) -> None:
    async with Client(secure.address, authority.issue("system:node:n1", "system:nodes")) as kubelet:
        assert (await kubelet.create(node("n1"))).metadata.uid
        with pytest.raises(errors.Forbidden, match="only write its own Node"):
            await kubelet.create(node("n2"))
        with pytest.raises(errors.Forbidden):
            await kubelet.create(config_map("a"))


async def test_the_controller_manager_writes_every_status_and_the_scheduler_binds(secure: Any, authority: Any) -> None:
    pod = from_json(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }
    )
    async with (
        Client(secure.address, authority.issue("system:kube-controller-manager")) as controllers,
        Client(secure.address, authority.issue("system:kube-scheduler")) as scheduler,
    ):
        made = await controllers.create(pod)
        made.status.message = "hello"
        assert (await controllers.update_status(made)).status.message == "hello"
        await scheduler.bind("default", "web", "n1")
        with pytest.raises(errors.Forbidden):
            await scheduler.create(pod)
