"""The verbs over gRPC, on stock etcd and on raftstore."""

import asyncio
from typing import Any

import pytest

from control.api.codec import from_json
from control.client import Client, errors
from protos.k8s import apps_v1_pb2 as apps
from protos.k8s import core_v1_pb2 as core
from protos.k8s import policy_v1_pb2 as policy
from protos.knarr import cluster_pb2 as pb
from raftstore.client import Client as Etcd


def pod(name: str = "web", **spec: Any) -> core.Pod:
    return from_json(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": "kubia"}], **spec},
        }
    )


def config_map(name: str, **data: str) -> core.ConfigMap:
    return from_json(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}
    )


def controller(name: str, replicas: int = 1) -> core.ReplicationController:
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "kubia"}]},
    }
    return from_json(
        {
            "apiVersion": "v1",
            "kind": "ReplicationController",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"replicas": replicas, "template": template},
        }
    )


async def test_a_created_pod_is_read_back_with_identity_and_defaults(client: Client) -> None:
    made = await client.create(pod())
    assert made.metadata.uid and made.metadata.resourceVersion and made.metadata.creationTimestamp.seconds
    assert made.status.phase == "Pending" and made.status.qosClass == "BestEffort"
    assert made.spec.containers[0].imagePullPolicy == "Always"
    assert {t.key for t in made.spec.tolerations} == {
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    }
    assert await client.get(core.Pod, "web", namespace="default") == made


async def test_names_are_unique_missing_is_told_and_invalid_is_told_by_field(client: Client) -> None:
    await client.create(pod())
    with pytest.raises(errors.AlreadyExists, match='pods "web" already exists'):
        await client.create(pod())
    with pytest.raises(errors.NotFound, match='pods "nope" not found') as missing:
        await client.get(core.Pod, "nope", namespace="default")
    assert (missing.value.details.kind, missing.value.details.name) == ("pods", "nope")
    bad = pod("Bad_Name")
    bad.spec.containers[0].ports.add(containerPort=70000)
    with pytest.raises(errors.Invalid) as caught:
        await client.create(bad)
    assert {cause.field for cause in caught.value.details.causes} == {
        "metadata.name",
        "spec.containers[0].ports[0].containerPort",
    }
    with pytest.raises(errors.NotFound, match='namespaces "gone" not found'):
        lost = pod()
        lost.metadata.namespace = "gone"
        await client.create(lost)


async def test_generated_names_differ_and_dry_run_stores_nothing(client: Client) -> None:
    one = pod("")
    one.metadata.generateName = "web-"
    names = {(await client.create(one)).metadata.name for _ in range(5)}
    assert len(names) == 5 and all(name.startswith("web-") and len(name) == 9 for name in names)
    assert (await client.create(pod("ghost"), dry_run=True)).metadata.uid
    with pytest.raises(errors.NotFound):
        await client.get(core.Pod, "ghost", namespace="default")


async def test_a_stale_update_conflicts_and_an_empty_one_changes_nothing(client: Client) -> None:
    made = await client.create(config_map("c", a="1"))
    made.data["a"] = "2"
    newer = await client.update(made)
    assert int(newer.metadata.resourceVersion) > int(made.metadata.resourceVersion)
    with pytest.raises(errors.Conflict, match="the object has been modified"):
        await client.update(made)
    same = await client.update(newer)
    assert same.metadata.resourceVersion == newer.metadata.resourceVersion
    made.metadata.resourceVersion = ""
    made.data["a"] = "3"
    assert (await client.update(made)).data["a"] == "3"


async def test_spec_and_status_are_written_apart_and_generation_counts_the_spec(client: Client) -> None:
    made = await client.create(controller("rc"))
    assert made.metadata.generation == 1 and made.spec.selector == {"app": "rc"}
    made.status.replicas = 5
    made.spec.replicas = 3
    changed = await client.update(made)
    assert (changed.spec.replicas, changed.status.replicas, changed.metadata.generation) == (3, 0, 2)
    changed.status.replicas = 3
    changed.spec.replicas = 9
    after = await client.update_status(changed)
    assert (after.spec.replicas, after.status.replicas, after.metadata.generation) == (3, 3, 2)


async def test_what_identifies_an_object_cannot_be_changed(client: Client) -> None:
    made = await client.create(pod())
    made.spec.containers[0].image = "other"
    assert (await client.update(made)).spec.containers[0].image == "other"
    made = await client.get(core.Pod, "web", namespace="default")
    made.spec.containers[0].command.append("x")
    with pytest.raises(errors.Invalid, match="pod updates may not change fields"):
        await client.update(made)
    made = await client.get(core.Pod, "web", namespace="default")
    made.metadata.uid = "other"
    with pytest.raises(errors.Conflict, match="UID in precondition"):
        await client.update(made)


async def test_patches_of_each_type(client: Client) -> None:
    await client.create(config_map("c", a="1", b="2"))
    merged = await client.patch(core.ConfigMap, "c", {"data": {"a": None, "c": "3"}}, namespace="default")
    assert merged.data == {"b": "2", "c": "3"}
    operations = [{"op": "test", "path": "/data/b", "value": "2"}, {"op": "remove", "path": "/data/b"}]
    patched = await client.patch(core.ConfigMap, "c", operations, namespace="default", patch_type="json")
    assert patched.data == {"c": "3"}
    with pytest.raises(errors.Invalid, match="does not exist"):
        await client.patch(core.ConfigMap, "c", operations, namespace="default", patch_type="json")
    await client.create(controller("rc"))
    image = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "kubia:2"}]}}}}
    rc = await client.patch(core.ReplicationController, "rc", image, namespace="default", patch_type="strategic")
    assert [(c.name, c.image, c.imagePullPolicy) for c in rc.spec.template.spec.containers] == [
        ("c", "kubia:2", "Always")
    ]
    with pytest.raises(errors.BadRequest, match=r"spec.replicsa: unknown field, did you mean replicas\?"):
        await client.patch(core.ReplicationController, "rc", {"spec": {"replicsa": 2}}, namespace="default")
    with pytest.raises(errors.Conflict):
        stale = {"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 2}}
        await client.patch(core.ReplicationController, "rc", stale, namespace="default")
    with pytest.raises(errors.NotImplementedYet, match="server-side apply is not implemented"):
        await client.patch(core.ReplicationController, "rc", {}, namespace="default", patch_type="apply")


async def test_concurrent_patches_all_count(client: Client) -> None:
    await client.create(config_map("c"))
    await asyncio.gather(
        *(client.patch(core.ConfigMap, "c", {"data": {f"k{i}": "x"}}, namespace="default") for i in range(8))
    )
    assert len((await client.get(core.ConfigMap, "c", namespace="default")).data) == 8


async def test_scale_is_read_written_and_patched(client: Client) -> None:
    await client.create(controller("rc", replicas=2))
    scale = await client.get_scale(core.ReplicationController, "rc", namespace="default")
    assert (scale.spec.replicas, scale.status.selector) == (2, "app=rc")
    scale.spec.replicas = 4
    assert (await client.update_scale(core.ReplicationController, scale)).spec.replicas == 4
    with pytest.raises(errors.Conflict):
        await client.update_scale(core.ReplicationController, scale)
    await client.patch(
        core.ReplicationController, "rc", {"spec": {"replicas": 7}}, namespace="default", subresource="scale"
    )
    assert (await client.get(core.ReplicationController, "rc", namespace="default")).spec.replicas == 7
    with pytest.raises(errors.Invalid, match=r"spec.replicas: Invalid value: -1"):
        await client.patch(
            core.ReplicationController, "rc", {"spec": {"replicas": -1}}, namespace="default", subresource="scale"
        )
    with pytest.raises(errors.MethodNotAllowed, match="configmaps have no subresource"):
        await client.get_scale(core.ConfigMap, "c", namespace="default")


async def test_a_running_pod_is_marked_then_removed_by_its_kubelet(client: Client) -> None:
    await client.create(pod())
    await client.bind("default", "web", "n1")
    with pytest.raises(errors.Conflict, match="already assigned to node 'n1'"):
        await client.bind("default", "web", "n2")
    marked = await client.delete(core.Pod, "web", namespace="default")
    assert marked.metadata.deletionGracePeriodSeconds == 30
    assert (await client.get(core.Pod, "web", namespace="default")).metadata.HasField("deletionTimestamp")
    shorter = await client.delete(core.Pod, "web", namespace="default", grace_period_seconds=5)
    assert shorter.metadata.deletionGracePeriodSeconds == 5
    longer = await client.delete(core.Pod, "web", namespace="default", grace_period_seconds=60)
    assert longer.metadata.deletionGracePeriodSeconds == 5
    await client.delete(core.Pod, "web", namespace="default", grace_period_seconds=0)
    with pytest.raises(errors.NotFound):
        await client.get(core.Pod, "web", namespace="default")


async def test_an_unscheduled_pod_goes_at_once_and_preconditions_hold(client: Client) -> None:
    made = await client.create(pod())
    with pytest.raises(errors.Conflict):
        await client.delete(core.Pod, "web", namespace="default", uid="other")
    await client.delete(core.Pod, "web", namespace="default", uid=made.metadata.uid)
    with pytest.raises(errors.NotFound):
        await client.delete(core.Pod, "web", namespace="default")


async def test_finalizers_hold_an_object_until_the_last_is_gone(client: Client) -> None:
    held = config_map("held")
    held.metadata.finalizers.extend(["example.com/a", "example.com/b"])
    await client.create(held)
    marked = await client.delete(core.ConfigMap, "held", namespace="default")
    assert marked.metadata.HasField("deletionTimestamp")
    marked.metadata.finalizers.remove("example.com/a")
    marked = await client.update(marked)
    with pytest.raises(errors.Invalid, match="no new finalizers can be added"):
        added = await client.get(core.ConfigMap, "held", namespace="default")
        added.metadata.finalizers.append("example.com/c")
        await client.update(added)
    await client.patch(core.ConfigMap, "held", {"metadata": {"finalizers": None}}, namespace="default")
    with pytest.raises(errors.NotFound):
        await client.get(core.ConfigMap, "held", namespace="default")


async def test_deleting_a_namespace_removes_its_contents(client: Client) -> None:
    space = from_json({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "blue"}})
    await client.create(space)
    inside = pod()
    inside.metadata.namespace = "blue"
    await client.create(inside)
    first = await client.list(core.Namespace)
    marked = await client.delete(core.Namespace, "blue")
    assert marked.status.phase == "Terminating"
    async with asyncio.timeout(10):
        async for event in client.watch(core.Namespace, resource_version=first.resource_version):
            if event.type == "DELETED":
                assert event.object.metadata.name == "blue"
                break
    assert not (await client.list(core.Pod, namespace="blue")).items
    with pytest.raises(errors.NotFound, match="namespaces"):
        await client.create(inside)
    with pytest.raises(errors.Forbidden, match="may not be deleted"):
        await client.delete(core.Namespace, "default")


async def test_services_get_addresses_and_ports_that_nobody_else_has(client: Client) -> None:
    def service(name: str, type_: str = "ClusterIP", **spec: Any) -> core.Service:
        return from_json(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"type": type_, "selector": {"app": "web"}, "ports": [{"port": 80}], **spec},
            }
        )

    made = await asyncio.gather(*(client.create(service(f"s{i}", "NodePort")) for i in range(6)))
    assert len({s.spec.clusterIP for s in made}) == 6 and len({s.spec.ports[0].nodePort for s in made}) == 6
    assert all(s.spec.ports[0].targetPort.intVal == 80 and 30000 <= s.spec.ports[0].nodePort < 32768 for s in made)
    with pytest.raises(errors.Invalid, match="already allocated"):
        await client.create(service("twin", clusterIP=made[0].spec.clusterIP))
    with pytest.raises(errors.Invalid, match="not in the service range"):
        await client.create(service("far", clusterIP="192.168.1.1"))
    headless = await client.create(service("headless", clusterIP="None"))
    assert (headless.spec.clusterIP, list(headless.spec.clusterIPs)) == ("None", ["None"])
    balanced = await client.create(service("lb", "LoadBalancer"))
    assert balanced.spec.ports[0].nodePort and balanced.spec.externalTrafficPolicy == "Cluster"
    plain = await client.patch(core.Service, "lb", {"spec": {"type": "ClusterIP"}}, namespace="default")
    assert plain.spec.clusterIP == balanced.spec.clusterIP and not plain.spec.ports[0].nodePort
    with pytest.raises(errors.Invalid, match=r"spec.clusterIP"):
        await client.patch(core.Service, "s0", {"spec": {"clusterIP": "10.96.9.9"}}, namespace="default")
    await client.delete(core.Service, "s0", namespace="default")
    again = await client.create(service("again", clusterIP=made[0].spec.clusterIP))
    assert again.spec.clusterIP == made[0].spec.clusterIP
    assert (await client.get(core.Service, "kubernetes", namespace="default")).spec.clusterIP == "10.96.0.1"


async def test_a_disruption_budget_says_not_now(client: Client) -> None:
    await client.create(pod())
    await client.bind("default", "web", "n1")
    budget = policy.PodDisruptionBudget()
    budget.metadata.name, budget.metadata.namespace = "b", "default"
    budget.spec.selector.matchLabels["app"] = "web"
    made = await client.create(budget)
    with pytest.raises(errors.TooManyRequests, match="disruption budget") as caught:
        await client.evict("default", "web")
    assert caught.value.details.retry_after_seconds == 10
    made.status.disruptionsAllowed = 1
    await client.update_status(made)
    await client.evict("default", "web")
    assert (await client.get(core.Pod, "web", namespace="default")).metadata.HasField("deletionTimestamp")
    assert (await client.get(policy.PodDisruptionBudget, "b", namespace="default")).status.disruptionsAllowed == 0


async def test_what_the_store_cannot_hold_or_has_damaged_is_told(client: Client, store: Any) -> None:
    big = config_map("big", a="x" * 900_000)
    big.metadata.annotations["a"] = "x" * 200_000
    for index in range(3):
        big.metadata.managedFields.add(manager="x" * 300_000, operation=str(index))
    with pytest.raises(errors.BadRequest, match="larger than the store accepts"):
        await client.create(big)
    await client.create(config_map("c"))
    async with Etcd([store.url]) as etcd:
        found = await etcd.range(b"/registry/configmaps/default/c")
        assert found.kvs[0].value.startswith(b"k8s\0") and b"resourceVersion" not in found.kvs[0].value
        await etcd.put(b"/registry/configmaps/default/c", b"garbage")
    with pytest.raises(errors.InternalError, match="the store's bytes at /registry/configmaps/default/c"):
        await client.get(core.ConfigMap, "c", namespace="default")
    assert (await client.create(config_map("d"))).metadata.uid


async def test_what_the_request_itself_gets_wrong_is_told(client: Client) -> None:
    with pytest.raises(errors.BadRequest, match="say the namespace"):
        await client.get(core.Pod, "web")
    with pytest.raises(errors.BadRequest, match=r"field label not supported: spec.color"):
        await client.list(core.Pod, field_selector="spec.color=red")
    with pytest.raises(errors.BadRequest, match="cannot read the label selector"):
        await client.list(core.Pod, label_selector="a in b")
    with pytest.raises(errors.BadRequest, match="continue token"):
        await client.list(core.Pod, continue_token="???")
    with pytest.raises(errors.BadRequest, match="patch_type"):
        request = pb.PatchRequest(type=pb.TypeRef(api_version="v1", kind="Pod"), namespace="default", name="x")
        await client._call(client._stub.Patch, request)
    with pytest.raises(errors.BadRequest, match="there is no Pod in 'apps/v1'"):
        await client._call(client._stub.Get, pb.GetRequest(type=pb.TypeRef(api_version="apps/v1", kind="Pod")))


async def test_the_server_tells_its_kinds_and_version(client: Client) -> None:
    resources = {resource.plural: resource for resource in await client.resources()}
    assert resources["deployments"].type.api_version == "apps/v1" and "po" in resources["pods"].short_names
    assert (await client.version()).kubernetes.startswith("v1.")
    made = await client.create(
        from_json(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "d", "namespace": "default"},
                "spec": {
                    "selector": {"matchLabels": {"app": "d"}},
                    "template": {
                        "metadata": {"labels": {"app": "d"}},
                        "spec": {"containers": [{"name": "c", "image": "i"}]},
                    },
                },
            }
        )
    )
    assert isinstance(made, apps.Deployment) and made.spec.strategy.rollingUpdate.maxSurge.strVal == "25%"


async def test_events_live_for_an_hour(client: Client, store: Any) -> None:
    event = from_json(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "e", "namespace": "default"},
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "web"},
            "type": "Normal",
            "reason": "Tested",
        }
    )
    await client.create(event)
    found = await client.list(core.Event, field_selector="involvedObject.name=web,reason=Tested")
    assert len(found.items) == 1
    async with Etcd([store.url]) as etcd:
        stored = (await etcd.range(b"/registry/events/default/e")).kvs[0]
        lease = await etcd.lease_time_to_live(stored.lease)
    assert 3500 < lease.TTL <= 3700
