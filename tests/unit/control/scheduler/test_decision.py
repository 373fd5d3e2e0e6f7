"""Which node, and in which words not."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from control.scheduler.cache import Cache, PodRecord
from control.scheduler.resources import pod_requests


def test_no_nodes(pod: Any, place: Any) -> None:
    assert place(pod(), []).message == "no nodes available to schedule pods"


def test_message_counts_reasons_over_nodes(node: Any, pod: Any, place: Any) -> None:
    assert place(pod(cpu="8"), [node("a")]).message == "0/1 nodes are available: 1 Insufficient cpu."
    nodes = [node("a", cpu="1"), node("b", cpu="1", memory="1Gi"), node("c", unschedulable=True)]
    decision = place(pod(cpu="2", memory="2Gi"), nodes)
    assert decision.node is None
    assert decision.message == (
        "0/3 nodes are available: 1 Insufficient memory, 1 node(s) were unschedulable, 2 Insufficient cpu."
    )
    assert decision.refused_by == {"fit", "unschedulable"}


def test_requests_of_other_pods_count(node: Any, pod: Any, place: Any) -> None:
    taken = pod("other", cpu="3500m", on="a")
    assert place(pod(cpu="500m"), [node("a")], (taken,)).node == "a"
    assert place(pod(cpu="501m"), [node("a")], (taken,)).node is None


def test_number_of_pods_is_a_resource(node: Any, pod: Any, place: Any) -> None:
    decision = place(pod(), [node("a", pods="1")], (pod("other", on="a"),))
    assert decision.message == "0/1 nodes are available: 1 Too many pods."


def test_finished_pods_take_no_room(node: Any, pod: Any, place: Any) -> None:
    over = pod("other", cpu="4", on="a")
    over.status.phase = "Succeeded"
    assert place(pod(cpu="4"), [node("a")], (over,)).node == "a"


def test_node_selector_and_required_affinity(node: Any, pod: Any, place: Any) -> None:
    nodes = [node("a", labels={"disk": "hdd"}), node("b", labels={"disk": "ssd", "gen": "7"})]
    assert place(pod(nodeSelector={"disk": "ssd"}), nodes).node == "b"
    assert "didn't match Pod's node affinity/selector" in place(pod(nodeSelector={"disk": "no"}), nodes).message
    term = {"matchExpressions": [{"key": "gen", "operator": "Gt", "values": ["6"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    assert place(pod(affinity={"nodeAffinity": required}), nodes).node == "b"


def test_preferred_affinity(node: Any, pod: Any, place: Any) -> None:
    nodes = [node("a", cpu="64"), node("b", labels={"disk": "ssd"})]
    term = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10, "preference": term}]}
    assert place(pod(affinity={"nodeAffinity": preferred}), nodes).node == "b"


def test_taints_and_tolerations(node: Any, pod: Any, place: Any) -> None:
    nodes = [node("a", taints=("gpu=yes:NoSchedule",))]
    assert place(pod(), nodes).message == "0/1 nodes are available: 1 node(s) had untolerated taint {gpu: yes}."
    tolerant = {"tolerations": [{"key": "gpu", "operator": "Exists"}]}
    assert place(pod(**tolerant), nodes).node == "a"
    wrong = {"tolerations": [{"key": "gpu", "value": "no", "effect": "NoSchedule"}]}
    assert place(pod(**wrong), nodes).node is None


def test_prefer_no_schedule_is_only_a_preference(node: Any, pod: Any, place: Any) -> None:
    nodes = [node("a", cpu="64", taints=("old=:PreferNoSchedule",)), node("b")]
    assert place(pod(), nodes).node == "b"
    assert place(pod(), nodes[:1]).node == "a"


def test_unready_and_cordoned_nodes(node: Any, pod: Any, place: Any) -> None:
    assert place(pod(), [node("a", ready="Unknown")]).message == "0/1 nodes are available: 1 node(s) were not ready."
    tolerant = pod(tolerations=[{"operator": "Exists"}])
    assert place(tolerant, [node("a", ready="False", unschedulable=True)]).node == "a"


def test_host_ports_clash(node: Any, pod: Any, place: Any) -> None:
    taken = pod("other", ports=(80,), on="a")
    decision = place(pod(ports=(80,)), [node("a")], (taken,))
    assert decision.message == (
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    )
    assert place(pod(ports=(81,)), [node("a")], (taken,)).node == "a"


def test_pods_of_one_controller_are_spread(node: Any, pod: Any, place: Any) -> None:
    nodes = [node("a"), node("b")]
    assert place(pod(owner="rc"), nodes, (pod("x", owner="rc", on="a"),)).node == "b"


def test_emptier_node_wins_and_ties_go_to_the_first_by_name(node: Any, pod: Any, place: Any) -> None:
    assert place(pod(cpu="1"), [node("a"), node("b")], (pod("x", cpu="2", on="a"),)).node == "b"
    assert place(pod(), [node("node-10"), node("node-2")]).node == "node-2"


def test_decision_explains_every_node(node: Any, pod: Any, place: Any) -> None:
    decision = place(pod(cpu="2"), [node("a"), node("b", cpu="1")])
    fits, refused = decision.verdicts
    assert fits.fits and set(fits.scores) >= {"least-allocated", "balanced", "spread"} and fits.total > 0
    assert (refused.refused_by, refused.reasons) == ("fit", ("Insufficient cpu",))


def test_init_containers_need_the_larger_of_both_and_sidecars_add(pod: Any) -> None:
    def spec(cpu: str, **more: str) -> dict[str, Any]:
        return {"name": "i", "image": "i", "resources": {"requests": {"cpu": cpu}}, **more}

    assert pod_requests(pod(cpu="1", initContainers=[spec("3")]))["cpu"] == 3000
    assert pod_requests(pod(cpu="1", initContainers=[spec("500m")]))["cpu"] == 1000
    assert pod_requests(pod(cpu="1", initContainers=[spec("500m", restartPolicy="Always")]))["cpu"] == 1500
    later = [spec("500m", restartPolicy="Always"), spec("2")]
    assert pod_requests(pod(cpu="1", initContainers=later))["cpu"] == 2500


STEPS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["n1", "n2", ""]), st.integers(1, 3)), max_size=40)


@settings(deadline=None)
@given(STEPS)
def test_node_sums_equal_the_sums_over_its_pods(steps: list[tuple[int, str, int]]) -> None:
    """The cache's invariant under any sequence of assuming, moving and removing."""
    cache, where = Cache(), {}
    from protos.k8s import core_v1_pb2 as core

    for name in ("n1", "n2"):
        cache.set_node(core.Node(metadata={"name": name}))
    for number, node, cpu in steps:
        key = f"default/p{number}"
        if node:
            record = PodRecord(key, node, {"cpu": cpu}, (cpu, 0), ((("0.0.0.0"), "TCP", number),), f"g{cpu}")
            cache.assume(record)
            where[key] = record
        else:
            cache.remove_pod(key)
            where.pop(key, None)
    for info in cache.nodes():
        here = [record for record in where.values() if record.node == info.name]
        assert info.requested.get("cpu", 0) == sum(record.requests["cpu"] for record in here)
        assert set(info.ports) == {port for record in here for port in record.ports}
        assert sum(info.groups.values()) == len(here) == len(info.pods)
