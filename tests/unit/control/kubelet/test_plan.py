"""The order of a pod's life, one sentence of the Kubernetes pod lifecycle at a time."""

from typing import Any

from control.kubelet.plan import (
    Failure,
    FinishPod,
    Plan,
    Probed,
    PullImage,
    RemoveContainer,
    RemoveSandbox,
    RunSandbox,
    StartContainer,
    StopContainer,
    StopSandbox,
    View,
    plan_pod,
)

NOTHING = View()


def starts(plan: Plan) -> list[tuple[str, int]]:
    return [(a.name, a.attempt) for a in plan.actions if isinstance(a, StartContainer)]


def test_new_pod_gets_a_sandbox_while_its_images_are_fetched(pod: Any, state: Any, now: float) -> None:
    plan = plan_pod(pod("a", "b"), state(), NOTHING, now)
    assert set(plan.actions) == {RunSandbox(0), PullImage("a"), PullImage("b")}


def test_all_containers_start_at_once_when_the_sandbox_is_ready(pod: Any, state: Any, sandbox: Any, now: float) -> None:
    assert starts(plan_pod(pod("a", "b"), state(sandbox()), NOTHING, now)) == [("a", 0), ("b", 0)]


def test_running_pod_needs_nothing(pod: Any, state: Any, sandbox: Any, container: Any, now: float) -> None:
    assert plan_pod(pod(), state(sandbox(), container("main", "running")), NOTHING, now) == Plan()


def test_init_containers_run_one_after_the_other(
    pod: Any, state: Any, sandbox: Any, container: Any, now: float
) -> None:
    web = pod("main", init=("one", "two"))
    assert starts(plan_pod(web, state(sandbox()), NOTHING, now)) == [("one", 0)]
    running = state(sandbox(), container("one", "running"))
    assert starts(plan_pod(web, running, NOTHING, now)) == []
    done = [container("one", "exited")]
    assert starts(plan_pod(web, state(sandbox(), *done), NOTHING, now)) == [("two", 0)]
    done.append(container("two", "exited"))
    assert starts(plan_pod(web, state(sandbox(), *done), NOTHING, now)) == [("main", 0)]


def test_failed_init_container_is_tried_again_but_not_with_restart_policy_never(
    pod: Any, state: Any, sandbox: Any, container: Any, now: float
) -> None:
    failed = state(sandbox(), container("one", "exited", code=1))
    assert starts(plan_pod(pod("main", init=("one",)), failed, NOTHING, now)) == [("one", 1)]
    never = plan_pod(pod("main", init=("one",), restartPolicy="Never"), failed, NOTHING, now)
    assert never.actions == (StopSandbox("s0"),)


def test_sidecar_starts_first_keeps_running_and_does_not_block(
    pod: Any, state: Any, sandbox: Any, container: Any, now: float
) -> None:
    web = pod("main", init=({"name": "side", "image": "side:1", "restartPolicy": "Always"},))
    assert starts(plan_pod(web, state(sandbox()), NOTHING, now)) == [("side", 0)]
    up = state(sandbox(), container("side", "running"))
    assert starts(plan_pod(web, up, NOTHING, now)) == [("main", 0)]
    not_started = View(probes={"side-0": Probed(started=False)})
    assert starts(plan_pod(web, up, not_started, now)) == []
    crashed = state(sandbox(), container("side", "exited", code=1), container("main", "running"))
    assert starts(plan_pod(web, crashed, NOTHING, now)) == [("side", 1)]


def test_first_restart_is_immediate_and_owes_ten_seconds(
    pod: Any, state: Any, sandbox: Any, container: Any, now: float
) -> None:
    plan = plan_pod(pod(), state(sandbox(), container("main", "exited", code=1)), NOTHING, now)
    assert plan.actions == (StartContainer("main", 1, "s0", 10.0),)


def test_later_restarts_wait_out_their_back_off(pod: Any, state: Any, sandbox: Any, container: Any, now: float) -> None:
    crashed = container("main", "exited", attempt=3, code=1, ago=15, backoff_s=20.0)
    plan = plan_pod(pod(), state(sandbox(), crashed), NOTHING, now)
    assert plan == Plan(wake_at=now + 5)
    later = plan_pod(pod(), state(sandbox(), crashed), NOTHING, now + 5)
    assert later.actions == (StartContainer("main", 4, "s0", 40.0),)


def test_back_off_is_forgotten_after_ten_minutes_of_running(
    pod: Any, state: Any, sandbox: Any, container: Any, now: float
) -> None:
    steady = container("main", "exited", attempt=9, code=1, backoff_s=300.0, started_s=now - 601)
    plan = plan_pod(pod(), state(sandbox(), steady), NOTHING, now)
    assert plan.actions == (StartContainer("main", 10, "s0", 10.0),)


def test_restart_policies(pod: Any, state: Any, sandbox: Any, container: Any, now: float) -> None:
    for policy, code, again in (
        ("Always", 0, True),
        ("OnFailure", 0, False),
        ("OnFailure", 1, True),
        ("Never", 1, False),
    ):
        ended = state(sandbox(), container("main", "exited", code=code), container("other", "running"))
        plan = plan_pod(pod("main", "other", restartPolicy=policy), ended, NOTHING, now)
        assert bool(starts(plan)) is again, policy


def test_finished_pod_gives_up_its_network_but_keeps_its_containers(
    pod: Any, state: Any, sandbox: Any, container: Any, now: float
) -> None:
    ended = state(sandbox(), container("main", "exited"))
    assert plan_pod(pod(restartPolicy="Never"), ended, NOTHING, now).actions == (StopSandbox("s0"),)
    rest = state(sandbox(ready=False), container("main", "exited"))
    assert plan_pod(pod(restartPolicy="Never"), rest, NOTHING, now) == Plan()


def test_dead_sandbox_is_replaced_and_its_containers_start_in_the_new_one(
    pod: Any, state: Any, sandbox: Any, container: Any, now: float
) -> None:
    dead = state(sandbox(ready=False), container("main", "exited", code=137))
    plan = plan_pod(pod(), dead, NOTHING, now)
    assert RunSandbox(1, ("s0",)) in plan.actions
    fresh = state(sandbox(ready=False), sandbox(1), container("main", "exited", code=137))
    assert plan_pod(pod(), fresh, NOTHING, now).actions == (StartContainer("main", 1, "s1", 10.0),)


def test_init_containers_run_again_in_a_new_sandbox(
    pod: Any, state: Any, sandbox: Any, container: Any, now: float
) -> None:
    old = (sandbox(ready=False), container("one", "exited"), container("main", "exited", code=137))
    plan = plan_pod(pod("main", init=("one",)), state(*old, sandbox(1)), NOTHING, now)
    assert starts(plan) == [("one", 1)]


def test_created_but_not_started_container_is_started_not_made_again(
    pod: Any, state: Any, sandbox: Any, container: Any, now: float
) -> None:
    """A kubelet killed between CreateContainer and StartContainer."""
    plan = plan_pod(pod(), state(sandbox(), container("main", "created")), NOTHING, now)
    assert plan.actions == (StartContainer("main", 0, "s0", 0.0, created="main-0"),)


def test_failed_probe_stops_the_container(pod: Any, state: Any, sandbox: Any, container: Any, now: float) -> None:
    view = View(probes={"main-0": Probed(failed="liveness", grace_s=3)})
    plan = plan_pod(pod(), state(sandbox(), container("main", "running")), view, now)
    reason = "Container main failed liveness probe, will be restarted"
    assert plan.actions == (StopContainer("main-0", "main", 3, reason),)


def test_changed_image_stops_the_container(pod: Any, state: Any, sandbox: Any, container: Any, now: float) -> None:
    plan = plan_pod(pod(), state(sandbox(), container("main", "running", spec_hash="old")), NOTHING, now)
    assert [type(action) for action in plan.actions] == [StopContainer]


def test_failed_start_is_not_tried_before_its_time(pod: Any, state: Any, sandbox: Any, now: float) -> None:
    view = View(failures={"main": Failure("ErrImagePull", "no", now - 1, now + 9)})
    assert plan_pod(pod(), state(sandbox()), view, now) == Plan(wake_at=now + 9)
    assert starts(plan_pod(pod(), state(sandbox()), view, now + 9)) == [("main", 0)]


def test_deleted_pod_stops_then_goes_then_is_finished(
    pod: Any, state: Any, sandbox: Any, container: Any, now: float
) -> None:
    web = pod("a", "b", deleting=30)
    running = state(sandbox(), container("a", "running"), container("b", "exited"))
    plan = plan_pod(web, running, NOTHING, now)
    assert plan.actions == (StopContainer("a-0", "a", 30, "Stopping container a", order=30),)
    stopped = state(sandbox(), container("a", "exited"), container("b", "exited"))
    assert plan_pod(web, stopped, NOTHING, now).actions == (RemoveSandbox("s0"),)
    assert plan_pod(web, state(), NOTHING, now).actions == (FinishPod(),)


def test_grace_period_is_not_started_afresh_and_a_shorter_one_is_a_new_order(
    pod: Any, state: Any, sandbox: Any, container: Any, now: float
) -> None:
    running = state(sandbox(), container("main", "running"))
    web = pod(deleting=30)
    first, later = (plan_pod(web, running, NOTHING, at).actions[0] for at in (now, now + 20))
    assert isinstance(later, StopContainer) and later.grace_s == 11
    assert later.key == first.key
    assert plan_pod(pod(deleting=5), running, NOTHING, now).actions[0].key != first.key


def test_sidecars_stop_after_the_containers_they_serve(
    pod: Any, state: Any, sandbox: Any, container: Any, now: float
) -> None:
    web = pod("main", init=({"name": "side", "image": "side:1", "restartPolicy": "Always"},), deleting=30)
    both = state(sandbox(), container("main", "running"), container("side", "running"))
    assert [a.name for a in plan_pod(web, both, NOTHING, now).actions] == ["main"]
    alone = state(sandbox(), container("main", "exited"), container("side", "running"))
    assert [a.name for a in plan_pod(web, alone, NOTHING, now).actions] == ["side"]


def test_pod_that_the_api_does_not_know_is_removed(state: Any, sandbox: Any, container: Any, now: float) -> None:
    running = state(sandbox(), container("main", "running"))
    assert [type(a) for a in plan_pod(None, running, NOTHING, now).actions] == [StopContainer]
    stopped = state(sandbox(), container("main", "exited"))
    assert plan_pod(None, stopped, NOTHING, now).actions == (RemoveSandbox("s0"),)
    assert plan_pod(None, state(), NOTHING, now) == Plan()


def test_only_the_newest_two_instances_are_kept(pod: Any, state: Any, sandbox: Any, container: Any, now: float) -> None:
    old = [container("main", "exited", attempt=n, code=1) for n in range(3)]
    plan = plan_pod(pod(), state(sandbox(), *old, container("main", "running", attempt=3)), NOTHING, now)
    assert set(plan.actions) == {RemoveContainer("main-0"), RemoveContainer("main-1")}


def test_old_sandbox_goes_once_none_of_its_containers_is_kept(
    pod: Any, state: Any, sandbox: Any, container: Any, now: float
) -> None:
    newer = [container("main", "running", attempt=1, sandbox_id="s1")]
    kept = state(sandbox(ready=False), sandbox(1), container("main", "exited"), *newer)
    assert plan_pod(pod(), kept, NOTHING, now) == Plan()
    gone = state(sandbox(ready=False), sandbox(1), *newer)
    assert plan_pod(pod(), gone, NOTHING, now).actions == (RemoveSandbox("s0"),)


def test_active_deadline_stops_the_pod(pod: Any, state: Any, sandbox: Any, container: Any, now: float) -> None:
    web = pod(activeDeadlineSeconds=60)
    web.status.startTime.seconds = int(now) - 50
    running = state(sandbox(), container("main", "running"))
    assert plan_pod(web, running, NOTHING, now) == Plan(wake_at=now + 10)
    assert [type(a) for a in plan_pod(web, running, NOTHING, now + 10).actions] == [StopContainer]
