"""What a pod's status says, against the Kubernetes API's words."""

from typing import Any

from control.kubelet.plan import Failure, Probed, View
from control.kubelet.podstatus import pod_status
from protos.k8s import core_v1_pb2 as core

NOTHING = View()


def condition(status: core.PodStatus, type_: str) -> core.PodCondition:
    return next(c for c in status.conditions if c.type == type_)


def test_pod_without_anything_is_pending_and_creating(pod: Any, state: Any, now: float) -> None:
    status = pod_status(pod(), state(), NOTHING, now, "192.0.2.1")
    assert status.phase == "Pending"
    assert status.containerStatuses[0].state.waiting.reason == "ContainerCreating"
    assert condition(status, "PodReadyToStartContainers").status == "False"
    assert condition(status, "PodScheduled").status == "True"
    assert status.hostIP == "192.0.2.1"


def test_running_pod_is_ready(pod: Any, state: Any, sandbox: Any, container: Any, now: float) -> None:
    status = pod_status(pod(), state(sandbox(), container("main", "running")), NOTHING, now, runtime_name="knarr")
    assert (status.phase, status.podIP, status.qosClass) == ("Running", "10.0.0.5", "BestEffort")
    main = status.containerStatuses[0]
    assert main.ready and main.started and main.containerID == "knarr://main-0"
    assert [c.status for c in status.conditions] == ["True"] * 5


def test_unready_container_makes_the_pod_unready(
    pod: Any, state: Any, sandbox: Any, container: Any, now: float
) -> None:
    view = View(probes={"main-0": Probed(ready=False)})
    status = pod_status(pod(), state(sandbox(), container("main", "running")), view, now)
    ready = condition(status, "Ready")
    assert (ready.status, ready.reason) == ("False", "ContainersNotReady")
    assert ready.message == "containers with unready status: [main]"


def test_crash_loop_shows_back_off_last_state_and_restart_count(
    pod: Any, state: Any, sandbox: Any, container: Any, now: float
) -> None:
    crashed = container("main", "exited", attempt=2, code=3, ago=1, backoff_s=20.0)
    main = pod_status(pod(), state(sandbox(), crashed), NOTHING, now).containerStatuses[0]
    assert main.state.waiting.reason == "CrashLoopBackOff"
    assert main.state.waiting.message == ("back-off 20s restarting failed container=main pod=web_default(u1)")
    assert (main.lastState.terminated.exitCode, main.lastState.terminated.reason) == (3, "Error")
    assert main.restartCount == 2


def test_pod_in_crash_loop_is_running(pod: Any, state: Any, sandbox: Any, container: Any, now: float) -> None:
    crashed = container("main", "exited", attempt=2, code=3, backoff_s=20.0)
    assert pod_status(pod(), state(sandbox(), crashed), NOTHING, now).phase == "Running"


def test_final_phases(pod: Any, state: Any, sandbox: Any, container: Any, now: float) -> None:
    for policy, code, phase in (
        ("Never", 0, "Succeeded"),
        ("Never", 1, "Failed"),
        ("OnFailure", 0, "Succeeded"),
        ("OnFailure", 1, "Running"),
        ("Always", 0, "Running"),
    ):
        ended = state(sandbox(), container("main", "exited", code=code, backoff_s=10.0))
        assert pod_status(pod(restartPolicy=policy), ended, NOTHING, now).phase == phase, (policy, code)


def test_final_phase_stays_when_the_runtime_forgets(pod: Any, state: Any, now: float) -> None:
    web = pod(restartPolicy="Never")
    web.status.phase = "Succeeded"
    main = web.status.containerStatuses.add(name="main", containerID="knarr://gone")
    main.state.terminated.reason = "Completed"
    status = pod_status(web, state(), NOTHING, now)
    assert status.phase == "Succeeded"
    assert status.containerStatuses[0].state.terminated.reason == "Completed"
    assert condition(status, "Ready").reason == "PodCompleted"


def test_container_that_vanished_while_reported_running_is_unknown(pod: Any, state: Any, now: float) -> None:
    web = pod(deleting=30)
    main = web.status.containerStatuses.add(name="main", containerID="knarr://gone", ready=True)
    main.state.running.startedAt.seconds = 5
    status = pod_status(web, state(), NOTHING, now)
    ended = status.containerStatuses[0].state.terminated
    assert (ended.reason, ended.exitCode, ended.startedAt.seconds) == ("ContainerStatusUnknown", 137, 5)


def test_failed_pull_shows_as_itself_then_as_back_off(pod: Any, state: Any, sandbox: Any, now: float) -> None:
    view = View(failures={"main": Failure("ErrImagePull", "not found", now, now + 10)})
    shown = [pod_status(pod(), state(sandbox()), view, at).containerStatuses[0].state.waiting for at in (now, now + 2)]
    assert [waiting.reason for waiting in shown] == ["ErrImagePull", "ImagePullBackOff"]
    assert shown[1].message == 'Back-off pulling image "main:1": ErrImagePull: not found'


def test_init_progress(pod: Any, state: Any, sandbox: Any, container: Any, now: float) -> None:
    web = pod("main", init=("one", "two"))
    status = pod_status(web, state(sandbox(), container("one", "exited")), NOTHING, now)
    initialised = condition(status, "Initialized")
    assert (initialised.status, initialised.message) == ("False", "containers with incomplete status: [two]")
    assert status.phase == "Pending"
    assert status.containerStatuses[0].state.waiting.reason == "PodInitializing"
    failed = pod_status(
        pod("main", init=("one",), restartPolicy="Never"),
        state(sandbox(), container("one", "exited", code=2)),
        NOTHING,
        now,
    )
    assert failed.phase == "Failed"


def test_transition_times_move_only_when_the_status_does(
    pod: Any, state: Any, sandbox: Any, container: Any, now: float
) -> None:
    web = pod()
    web.status.CopyFrom(pod_status(web, state(sandbox(), container("main", "running")), NOTHING, now))
    later = pod_status(web, state(sandbox(), container("main", "running")), NOTHING, now + 50)
    assert later == web.status
    down = pod_status(web, state(sandbox(), container("main", "exited")), NOTHING, now + 50)
    assert condition(down, "Ready").lastTransitionTime.seconds == int(now + 50)
    assert condition(down, "Initialized").lastTransitionTime.seconds == int(now)


def test_conditions_of_others_and_readiness_gates(
    pod: Any, state: Any, sandbox: Any, container: Any, now: float
) -> None:
    web = pod(readinessGates=[{"conditionType": "example.com/ready"}])
    running = state(sandbox(), container("main", "running"))
    assert condition(pod_status(web, running, NOTHING, now), "Ready").reason == "ReadinessGatesNotReady"
    web.status.conditions.add(type="example.com/ready", status="True")
    status = pod_status(web, running, NOTHING, now)
    assert condition(status, "Ready").status == "True"
    assert condition(status, "example.com/ready").status == "True"


def test_deadline(pod: Any, state: Any, sandbox: Any, container: Any, now: float) -> None:
    web = pod(activeDeadlineSeconds=1)
    web.status.startTime.seconds = int(now) - 5
    status = pod_status(web, state(sandbox(), container("main", "running")), NOTHING, now)
    assert (status.phase, status.reason) == ("Failed", "DeadlineExceeded")


def test_host_network_pod_has_the_node_address(pod: Any, state: Any, sandbox: Any, container: Any, now: float) -> None:
    status = pod_status(pod(hostNetwork=True), state(sandbox()), NOTHING, now, "192.0.2.1")
    assert status.podIP == "192.0.2.1"
