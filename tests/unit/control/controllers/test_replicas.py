"""How many pods, which ones, and whose."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from control.controllers.expectations import TIMEOUT_S, Expectations
from control.controllers.replicas import batches, pod_from, reconcile
from protos.k8s import core_v1_pb2 as core


def names(pods: Any) -> list[str]:
    return [pod.metadata.name for pod in pods]


def test_missing_pods_are_created_and_surplus_deleted(rc: Any, pod: Any, now: float) -> None:
    mine = [pod(f"p{n}", owner=rc) for n in range(5)]
    assert reconcile(rc, mine[:1], True, now).create == 2
    enough = reconcile(rc, mine[:3], True, now)
    assert (enough.create, enough.delete) == (0, ())
    assert len(reconcile(rc, mine, True, now).delete) == 2


def test_nothing_is_done_while_earlier_work_is_unseen(rc: Any, pod: Any, now: float) -> None:
    actions = reconcile(rc, [], False, now)
    assert (actions.create, actions.delete) == (0, ())


def test_finished_and_terminating_pods_do_not_count(rc: Any, pod: Any, now: float) -> None:
    pods = [pod("a", owner=rc), pod("b", owner=rc, phase="Failed"), pod("c", owner=rc, deleting=True)]
    assert reconcile(rc, pods, True, now).create == 2


def test_orphans_that_match_are_adopted_and_own_pods_that_do_not_are_released(rc: Any, pod: Any, now: float) -> None:
    other = core.ReplicationController(metadata={"name": "other", "uid": "uid-other"})
    pods = [pod("orphan"), pod("stray", owner=rc, labels={"app": "changed"}), pod("theirs", owner=other)]
    actions = reconcile(rc, pods, True, now)
    assert (names(actions.adopt), names(actions.release)) == (["orphan"], ["stray"])
    assert actions.create == 2


def test_deleted_controller_does_nothing(rc: Any, pod: Any, now: float) -> None:
    rc.metadata.deletionTimestamp.seconds = 1
    actions = reconcile(rc, [pod("orphan")], True, now)
    assert (actions.adopt, actions.create, actions.delete) == ((), 0, ())


def test_deletion_order(rc: Any, pod: Any, now: float) -> None:
    """Without a node, pending, unready, cheap, crowded, young in readiness, restarted, young."""
    rc.spec.replicas = 0
    restarted = pod("restarted", owner=rc, on="n2")
    restarted.status.containerStatuses.add(name="c", restartCount=3)
    cheap = pod("cheap", owner=rc, on="n6")
    cheap.metadata.annotations["controller.kubernetes.io/pod-deletion-cost"] = "-5"
    pods = [
        pod("steady", owner=rc, on="n3", age=900),
        pod("young", owner=rc, on="n3b", age=300),
        restarted,
        pod("fresh", owner=rc, on="n4", ready_for=10),
        pod("crowd1", owner=rc, on="n5", ready_for=500),
        pod("crowd2", owner=rc, on="n5", ready_for=400),
        cheap,
        pod("unready", owner=rc, on="n7", ready=False),
        pod("pending", owner=rc, on="n8", ready=False, phase="Pending"),
        pod("nowhere", owner=rc, on="", ready=False, phase="Pending"),
    ]
    order = names(reconcile(rc, pods, True, now).delete)
    assert order == [
        "nowhere", "pending", "unready", "cheap", "crowd2", "crowd1", "fresh", "restarted", "young", "steady",
    ]  # fmt: skip


def test_counts_and_availability(rc: Any, pod: Any, now: float) -> None:
    rc.spec.minReadySeconds = 60
    pods = [pod("old", owner=rc), pod("new", owner=rc, ready_for=20), pod("un", owner=rc, ready=False)]
    actions = reconcile(rc, pods, True, now)
    assert actions.counts is not None
    assert (actions.counts.replicas, actions.counts.ready, actions.counts.available) == (3, 2, 1)
    assert actions.look_again_s == 40


def test_new_pod_is_the_template_with_an_owner(rc: Any) -> None:
    made = pod_from(rc, rc.spec.template)
    assert made.metadata.generateName == "web-"
    assert dict(made.metadata.labels) == {"app": "web"}
    owner = made.metadata.ownerReferences[0]
    assert (owner.kind, owner.uid, owner.controller, owner.blockOwnerDeletion) == (
        "ReplicationController", "uid-rc", True, True,
    )  # fmt: skip


def test_slow_start() -> None:
    assert list(batches(10)) == [1, 2, 4, 3]


def test_expectations_are_met_by_what_is_seen_or_by_time() -> None:
    open_ = Expectations()
    assert open_.met("k", 0)
    open_.expect("k", 2, ["u"], 0)
    open_.created("k")
    open_.deleted("k", "u")
    assert not open_.met("k", 1)
    open_.created("k")
    assert open_.met("k", 1)
    open_.expect("k", 1, (), 10)
    assert not open_.met("k", 10 + TIMEOUT_S)
    assert open_.met("k", 11 + TIMEOUT_S)


@settings(deadline=None)
@given(st.integers(0, 12), st.lists(st.sampled_from(["ok", "gone", "over"]), max_size=12))
def test_after_its_actions_the_controller_has_what_it_wants(replicas: int, kinds: list[str]) -> None:
    """Whatever is there, doing what reconcile says once leads to exactly the wanted number, and then to rest."""
    rc = core.ReplicationController(metadata={"name": "web", "namespace": "default", "uid": "uid-rc"})
    rc.spec.replicas = replicas
    rc.spec.selector["app"] = "web"

    def build(name: str, kind: str) -> core.Pod:
        made = core.Pod(metadata={"name": name, "uid": name, "labels": {"app": "web"}})
        made.metadata.ownerReferences.add(uid="uid-rc", controller=True)
        made.status.phase = "Failed" if kind == "over" else "Running"
        if kind == "gone":
            made.metadata.deletionTimestamp.seconds = 1
        return made

    pods = [build(f"p{n}", kind) for n, kind in enumerate(kinds)]
    actions = reconcile(rc, pods, True, 0)
    left = [pod for pod in pods if pod not in actions.delete]
    left += [build(f"new{n}", "ok") for n in range(actions.create)]
    again = reconcile(rc, left, True, 0)
    assert (again.create, again.delete) == (0, ())
    assert again.counts is not None and again.counts.replicas == replicas
