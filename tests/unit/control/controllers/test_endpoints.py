"""Who serves a service: Endpoints and EndpointSlices."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from control.controllers.endpoints import desired_endpoints, desired_subsets
from control.controllers.endpointslices import ENDPOINTS_MAX, plan_slices
from protos.k8s import core_v1_pb2 as core
from protos.k8s import discovery_v1_pb2 as discovery


def test_ready_unready_terminating_finished(service: Any, pod: Any) -> None:
    pods = [
        pod("a", ip="10.0.0.2"),
        pod("b", ip="10.0.0.1", ready=False),
        pod("c", ip="10.0.0.3", deleting=True),
        pod("d", ip="10.0.0.4", phase="Succeeded"),
        pod("e", ip=""),
    ]
    (subset,) = desired_subsets(service(), pods)
    assert [a.ip for a in subset.addresses] == ["10.0.0.2"]
    assert [a.ip for a in subset.notReadyAddresses] == ["10.0.0.1"]
    assert (subset.addresses[0].targetRef.name, subset.addresses[0].nodeName) == ("a", "n1")
    assert [(p.port, p.protocol) for p in subset.ports] == [(8080, "TCP")]


def test_unready_pods_are_published_when_asked_for(service: Any, pod: Any) -> None:
    (subset,) = desired_subsets(service(publishNotReadyAddresses=True), [pod("b", ready=False)])
    assert len(subset.addresses) == 1 and not subset.notReadyAddresses


def test_named_target_ports_are_looked_up_in_each_pod(service: Any, pod: Any) -> None:
    pods = [pod("a", ip="10.0.0.1"), pod("b", ip="10.0.0.2", ports=(("http", 9090),)), pod("c", ports=())]
    subsets = desired_subsets(service(target="http"), pods)
    assert [([a.ip for a in s.addresses], [p.port for p in s.ports]) for s in subsets] == [
        (["10.0.0.1"], []), (["10.0.0.1"], [8080]), (["10.0.0.2"], [9090]),
    ]  # fmt: skip


def test_endpoints_carry_the_service_labels(service: Any, pod: Any) -> None:
    assert dict(desired_endpoints(service(), []).metadata.labels) == {"tier": "front"}
    headless = desired_endpoints(service(clusterIP="None"), [])
    assert "service.kubernetes.io/headless" in headless.metadata.labels


def test_slice_conditions(service: Any, pod: Any) -> None:
    pods = [pod("a"), pod("b", ready=False), pod("c", deleting=True), pod("d", ready=False, deleting=True)]
    plan = plan_slices(service(), pods, [], {"n1": "zone-1"})
    (made,) = plan.create
    found = {
        e.targetRef.name: (e.conditions.ready, e.conditions.serving, e.conditions.terminating) for e in made.endpoints
    }
    assert found == {
        "a": (True, True, False), "b": (False, False, False), "c": (False, True, True), "d": (False, False, True),
    }  # fmt: skip
    assert made.endpoints[0].zone == "zone-1"
    assert made.metadata.labels["kubernetes.io/service-name"] == "web"
    assert made.metadata.ownerReferences[0].uid == "uid-svc"
    assert made.addressType == "IPv4"


def _apply(plan: Any, slices: list[discovery.EndpointSlice]) -> list[discovery.EndpointSlice]:
    """What the apiserver would hold after the plan."""
    held = {item.metadata.name: item for item in slices}
    for item in plan.delete:
        del held[item.metadata.name]
    for item in plan.update:
        held[item.metadata.name] = item
    for item in plan.create:
        item.metadata.name = f"web-{len(held)}-{id(item)}"
        held[item.metadata.name] = item
    return list(held.values())


def test_one_changed_pod_of_many_rewrites_one_slice(service: Any, pod: Any) -> None:
    pods = [pod(f"p{n:03}", ip=f"10.0.1.{n}") for n in range(250)]
    plan = plan_slices(service(), pods, [], {})
    assert sorted(len(item.endpoints) for item in plan.create) == [50, 100, 100]
    slices = _apply(plan, [])
    again = plan_slices(service(), pods, slices, {})
    assert (again.create, again.update, again.delete) == ([], [], [])
    pods[7] = pod("p007", ip="10.0.1.7", ready=False)
    changed = plan_slices(service(), pods, slices, {})
    assert (len(changed.create), len(changed.update), len(changed.delete)) == (0, 1, 0)


STEPS = st.lists(st.sets(st.integers(0, 130), max_size=130), min_size=1, max_size=5)


@settings(deadline=None)
@given(STEPS)
def test_slices_list_exactly_the_pods_and_never_overflow(steps: list[set[int]]) -> None:
    service = core.Service(metadata={"name": "web", "namespace": "default", "uid": "s"})
    service.spec.ports.add(port=80)
    slices: list[discovery.EndpointSlice] = []
    for step in steps:
        pods = [
            core.Pod(metadata={"name": f"p{n}", "uid": f"u{n}"}, status={"podIP": f"10.0.0.{n}", "phase": "Running"})
            for n in sorted(step)
        ]
        slices = _apply(plan_slices(service, pods, slices, {}), slices)
        listed = [endpoint.targetRef.uid for item in slices for endpoint in item.endpoints]
        assert sorted(listed) == sorted(f"u{n}" for n in step)
        assert all(0 < len(item.endpoints) <= ENDPOINTS_MAX for item in slices)
