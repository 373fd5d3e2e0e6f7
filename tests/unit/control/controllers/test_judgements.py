"""Nodes, addresses, garbage: the smaller controllers' decisions."""

import ipaddress
from typing import Any

from control.controllers.garbage import blocking, judge
from control.controllers.node import assess, evictions, with_taints, with_unknown
from control.controllers.podgc import plan_garbage
from control.controllers.servicelb import plan_address
from protos.k8s import core_v1_pb2 as core

NETWORK = ipaddress.ip_network("10.98.0.0/29")
UNREACHABLE = "node.kubernetes.io/unreachable"


def node(ready: str = "True") -> core.Node:
    made = core.Node(metadata={"name": "n1"})
    made.status.conditions.add(type="Ready", status=ready)
    return made


def test_node_is_silent_after_its_grace_period(now: float) -> None:
    fresh = assess(node(), now - 30, now)
    assert (fresh.silent, fresh.taints, fresh.look_again_s) == (False, (), 10)
    silent = assess(node(), now - 40, now)
    assert silent.silent and silent.taints == ((UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute"))


def test_unready_node_is_tainted_and_ready_again_untainted(now: float) -> None:
    unready = assess(node("False"), now, now)
    tainted = with_taints(node(), unready.taints)
    assert tainted is not None
    tainted.spec.taints.add(key="mine", effect="NoSchedule")
    assert with_taints(tainted, unready.taints) is None
    clean = with_taints(tainted, assess(node(), now, now).taints)
    assert clean is not None and [t.key for t in clean.spec.taints] == ["mine"]


def test_silent_node_is_unknown_once() -> None:
    unknown = with_unknown(node())
    assert unknown is not None
    ready = unknown.status.conditions[0]
    assert (ready.status, ready.reason) == ("Unknown", "NodeStatusUnknown")
    assert with_unknown(unknown) is None


def test_evictions(pod: Any, now: float) -> None:
    taint = core.Taint(key=UNREACHABLE, effect="NoExecute")
    taint.timeAdded.seconds = int(now) - 100
    pods = [
        pod("default"),
        pod("patient", tolerations=[{"key": UNREACHABLE, "operator": "Exists", "tolerationSeconds": 150}]),
        pod("hasty", tolerations=[{"key": UNREACHABLE, "operator": "Exists", "tolerationSeconds": 30}]),
        pod("forever", tolerations=[{"operator": "Exists"}]),
        pod("leaving", deleting=True),
    ]
    found = evictions([taint], pods, now)
    assert [p.metadata.name for p in found.now] == ["hasty"]
    assert found.look_again_s == 50
    assert [p.metadata.name for p in evictions([taint], pods, now, timeout_s=60).now] == ["default", "hasty"]
    custom = core.Taint(key="example.com/drain", effect="NoExecute")
    assert [p.metadata.name for p in evictions([custom], pods, now).now] == ["default", "patient", "hasty"]


def test_addresses(service: Any) -> None:
    wanted = service(type="LoadBalancer")
    assert plan_address(wanted, [], NETWORK).address == "10.98.0.1"
    assert plan_address(wanted, ["10.98.0.1", "10.98.0.2"], NETWORK).address == "10.98.0.3"
    full = plan_address(wanted, [str(host) for host in NETWORK.hosts()], NETWORK)
    assert (full.address, full.problem) == (None, "no address is left in 10.98.0.0/29")
    wanted.status.loadBalancer.ingress.add(ip="10.98.0.5")
    assert plan_address(wanted, [], NETWORK).address == "10.98.0.5"
    assert plan_address(service(type="ClusterIP"), [], NETWORK).address is None


def test_requested_address(service: Any) -> None:
    asked = service(type="LoadBalancer", loadBalancerIP="10.98.0.4")
    assert plan_address(asked, [], NETWORK).address == "10.98.0.4"
    assert "belongs to another" in plan_address(asked, ["10.98.0.4"], NETWORK).problem
    outside = service(type="LoadBalancer", loadBalancerIP="192.0.2.1")
    assert "is not in 10.98.0.0/29" in plan_address(outside, [], NETWORK).problem


def test_pod_garbage(pod: Any) -> None:
    pods = [
        pod("lives"),
        pod("lost", on="n2"),
        pod("maybe", on="n3"),
        pod("unplaced", on="", deleting=True),
        pod("oldest", phase="Succeeded", age=900),
        pod("newer", phase="Failed", age=100),
    ]
    found = plan_garbage(pods, {"n1"}, {"n2"}, finished_max=1)
    assert [garbage.pod.metadata.name for garbage in found] == ["lost", "unplaced", "oldest"]


def owner(uid: str, *finalizers: str, deleting: bool = False) -> core.ReplicationController:
    made = core.ReplicationController(metadata={"name": uid, "uid": uid, "finalizers": finalizers})
    if deleting:
        made.metadata.deletionTimestamp.seconds = 1
    return made


def dependent(*uids: str) -> core.Pod:
    made = core.Pod(metadata={"name": "p", "uid": "p"})
    for uid in uids:
        made.metadata.ownerReferences.add(uid=uid, blockOwnerDeletion=True)
    return made


def test_dependents_of_gone_owners_go(rc: Any) -> None:
    alive = {"a": owner("a")}
    find = lambda reference: alive.get(reference.uid)  # noqa: E731
    assert judge(dependent("a"), find) == judge(dependent(), find)
    assert not judge(dependent("a"), find).delete
    assert judge(dependent("x"), find).delete
    assert judge(dependent("a", "x"), find).drop == ("x",)


def test_foreground_and_blocking() -> None:
    waiting = owner("a", "foregroundDeletion", deleting=True)
    verdict = judge(dependent("a"), lambda reference: waiting)
    assert (verdict.delete, verdict.propagation) == (True, "Foreground")
    assert blocking(waiting, [dependent("a"), dependent("b")]) == [dependent("a")]
    plain = owner("a", deleting=True)
    assert not judge(dependent("a"), lambda reference: plain).delete
