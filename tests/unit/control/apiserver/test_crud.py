"""The verbs over gRPC, on stock etcd and on raftstore."""

import pytest

from control.api.codec import from_json
from control.client import Client, errors
from protos.k8s import core_v1_pb2 as core


def pod(name: str = "web", **spec: object) -> core.Pod:
    return from_json(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [{"name": "c", "image": "kubia"}], **spec},
        }
    )


async def test_a_created_pod_is_read_back_with_identity_and_defaults(client: Client) -> None:
    made = await client.create(pod())
    assert made.metadata.uid and made.metadata.resourceVersion and made.metadata.creationTimestamp.seconds
    assert made.status.phase == "Pending" and made.spec.containers[0].imagePullPolicy == "Always"
    assert await client.get(core.Pod, "web", namespace="default") == made


async def test_creating_it_twice_is_refused(client: Client) -> None:
    await client.create(pod())
    with pytest.raises(errors.AlreadyExists, match='pods "web" already exists'):
        await client.create(pod())
