"""The PodStatus that the kubelet reports, computed from the pod, the runtime's state and the probes. Pure.

Rules are the Kubernetes API's: Pod lifecycle (phases), PodCondition types, ContainerState. A phase that is final
stays; what the runtime has forgotten keeps the state last reported.
"""

from collections.abc import Iterable

from control.kubelet.plan import Failure, View, deadline_passed, init_failed, is_sidecar
from control.kubelet.qos import qos_class
from control.kubelet.restart import finished, restart_at
from control.kubelet.state import Container, PodRuntime, State
from protos.k8s import core_v1_pb2 as core
from protos.k8s import meta_v1_pb2 as meta

OWNED_CONDITIONS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
"""Conditions the kubelet writes; any other condition is somebody else's and stays as it is."""

IMAGE_BACKOFF_SHOWS_AFTER_S = 1.0
"""How long a failed pull shows as ErrImagePull before it shows as ImagePullBackOff, seconds."""


def pod_status(
    pod: core.Pod, runtime: PodRuntime, view: View, now: float, host_ip: str = "", runtime_name: str = "knarr"
) -> core.PodStatus:
    """The status to report for ``pod`` at ``now`` (seconds since the epoch).

    ``runtime_name`` prefixes container ids, ``knarr://<id>``, as the CRI Version names the runtime.
    """
    return _Status(pod, runtime, view, now, host_ip, runtime_name).build()


class _Status:
    def __init__(
        self, pod: core.Pod, runtime: PodRuntime, view: View, now: float, host_ip: str, runtime_name: str
    ) -> None:
        self.pod, self.runtime, self.view, self.now = pod, runtime, view, now
        self.host_ip, self.runtime_name = host_ip, runtime_name
        self.policy = pod.spec.restartPolicy or "Always"
        self.old = pod.status

    def build(self) -> core.PodStatus:
        status = core.PodStatus(qosClass=qos_class(self.pod), hostIP=self.host_ip)
        if self.host_ip:
            status.hostIPs.add(ip=self.host_ip)
        self._addresses(status)
        status.startTime.CopyFrom(self.old.startTime if self.old.HasField("startTime") else time_of(self.now))
        status.initContainerStatuses.extend(
            self._container(spec, self.old.initContainerStatuses, True) for spec in self.pod.spec.initContainers
        )
        status.containerStatuses.extend(
            self._container(spec, self.old.containerStatuses) for spec in self.pod.spec.containers
        )
        self._phase(status)
        self._conditions(status)
        if self.pod.metadata.HasField("generation"):
            status.observedGeneration = self.pod.metadata.generation
        return status

    def _addresses(self, status: core.PodStatus) -> None:
        sandbox = self.runtime.sandbox
        ips: Iterable[str] = sandbox.ips if sandbox is not None else ()
        if sandbox is not None and self.pod.spec.hostNetwork and self.host_ip:
            ips = (self.host_ip,)
        if not ips and (self.old.phase in ("Succeeded", "Failed") or self.pod.metadata.HasField("deletionTimestamp")):
            ips = [entry.ip for entry in self.old.podIPs]
        for ip in ips:
            status.podIPs.add(ip=ip)
        if status.podIPs:
            status.podIP = status.podIPs[0].ip

    def _phase(self, status: core.PodStatus) -> None:
        if self.old.phase in ("Succeeded", "Failed"):
            status.phase, status.reason, status.message = self.old.phase, self.old.reason, self.old.message
        elif deadline_passed(self.pod, self.now):
            status.phase, status.reason = "Failed", "DeadlineExceeded"
            status.message = "Pod was active on the node longer than the specified deadline"
        else:
            status.phase = phase(self.pod, self.runtime)
        if not status.reason:
            status.ClearField("reason")
            status.ClearField("message")

    def _container(
        self, spec: core.Container, reported: Iterable[core.ContainerStatus], init: bool = False
    ) -> core.ContainerStatus:
        old = next((entry for entry in reported if entry.name == spec.name), None)
        instances = started_instances(self.runtime, spec.name)
        if not instances:
            return self._unseen(spec, old)
        newest, before = instances[0], instances[1] if len(instances) > 1 else None
        probed = self.view.probed(newest)
        status = core.ContainerStatus(
            name=spec.name,
            restartCount=newest.attempt,
            image=newest.image or spec.image,
            imageID=newest.image_ref or newest.image_id,
            containerID=self._container_id(newest),
            started=newest.running and probed.started,
            ready=self._ready(spec, newest, init),
        )
        status.state.CopyFrom(self._state(spec, newest, init))
        if status.state.HasField("waiting") and newest.over:
            status.lastState.terminated.CopyFrom(self._terminated(newest))
        elif before is not None:
            status.lastState.terminated.CopyFrom(self._terminated(before))
        elif old is not None and old.HasField("lastState"):
            status.lastState.CopyFrom(old.lastState)
        return status

    def _ready(self, spec: core.Container, newest: Container, init: bool) -> bool:
        probed = self.view.probed(newest)
        if init and not is_sidecar(spec):
            return newest.succeeded
        return newest.running and probed.started and probed.ready

    def _unseen(self, spec: core.Container, old: core.ContainerStatus | None) -> core.ContainerStatus:
        """A container that the runtime has nothing of: not made yet, or gone with what we last reported of it."""
        status = core.ContainerStatus(
            name=spec.name, restartCount=0, image=spec.image, imageID="", ready=False, started=False
        )
        if old is not None and old.containerID:
            status.CopyFrom(old)
            status.ready, status.started = False, False
            if old.state.HasField("running"):
                lost = status.state.terminated
                lost.exitCode, lost.reason, lost.containerID = 137, "ContainerStatusUnknown", old.containerID
                lost.message = "The container could not be located when the pod was terminated"
                lost.startedAt.CopyFrom(old.state.running.startedAt)
                lost.finishedAt.CopyFrom(time_of(self.now))
                status.state.ClearField("running")
            return status
        status.state.waiting.CopyFrom(self._waiting(spec))
        return status

    def _waiting(self, spec: core.Container) -> core.ContainerStateWaiting:
        failure = self.view.failures.get(spec.name)
        if failure is not None:
            return waiting_of(failure, spec.image, self.now)
        before_init = bool(self.pod.spec.initContainers)
        return core.ContainerStateWaiting(reason="PodInitializing" if before_init else "ContainerCreating")

    def _state(self, spec: core.Container, newest: Container, init: bool) -> core.ContainerState:
        state = core.ContainerState()
        failure = self.view.failures.get(spec.name)
        policy = "Always" if is_sidecar(spec) else "OnFailure" if init and self.policy != "Never" else self.policy
        if newest.running:
            state.running.startedAt.CopyFrom(time_of(newest.started_s))
        elif finished(newest, policy) or self._ending():
            state.terminated.CopyFrom(self._terminated(newest))
        elif failure is not None:
            state.waiting.CopyFrom(waiting_of(failure, spec.image, self.now))
        elif restart_at(newest) > self.now:
            state.waiting.CopyFrom(crash_loop(self.pod, spec.name, newest))
        else:
            state.terminated.CopyFrom(self._terminated(newest))
        return state

    def _ending(self) -> bool:
        final = self.old.phase in ("Succeeded", "Failed") or init_failed(self.pod, self.runtime)
        return final or self.pod.metadata.HasField("deletionTimestamp") or deadline_passed(self.pod, self.now)

    def _terminated(self, container: Container) -> core.ContainerStateTerminated:
        reason = container.reason or ("Completed" if container.exit_code == 0 else "Error")
        ended = core.ContainerStateTerminated(
            exitCode=container.exit_code, reason=reason, containerID=self._container_id(container)
        )
        if container.message:
            ended.message = container.message
        ended.startedAt.CopyFrom(time_of(container.started_s))
        ended.finishedAt.CopyFrom(time_of(container.finished_s))
        return ended

    def _container_id(self, container: Container) -> str:
        return f"{self.runtime_name}://{container.id}"

    def _conditions(self, status: core.PodStatus) -> None:
        scheduled = core.PodCondition(type="PodScheduled", status="True")
        sandbox = self.runtime.sandbox
        network = core.PodCondition(
            type="PodReadyToStartContainers",
            status=_bool(sandbox is not None and bool(sandbox.ips or self.pod.spec.hostNetwork)),
        )
        initialised = self._initialised(status)
        ready = self._containers_ready(status)
        pod_ready = core.PodCondition()
        pod_ready.CopyFrom(ready)
        pod_ready.type = "Ready"
        self._readiness_gates(pod_ready)
        for condition in (network, initialised, pod_ready, ready, scheduled):
            status.conditions.append(stamped(condition, self.old.conditions, self.now))
        status.conditions.extend(c for c in self.old.conditions if c.type not in OWNED_CONDITIONS)

    def _initialised(self, status: core.PodStatus) -> core.PodCondition:
        done = core.PodCondition(type="Initialized", status="True")
        if status.phase == "Succeeded":
            done.reason = "PodCompleted"
            return done
        sidecars = {spec.name for spec in self.pod.spec.initContainers if is_sidecar(spec)}
        missing = [c.name for c in status.initContainerStatuses if not (c.started if c.name in sidecars else c.ready)]
        if missing and not any(self.runtime.newest(spec.name) for spec in self.pod.spec.containers):
            done.status, done.reason = "False", "ContainersNotInitialized"
            done.message = f"containers with incomplete status: [{' '.join(missing)}]"
        return done

    def _containers_ready(self, status: core.PodStatus) -> core.PodCondition:
        condition = core.PodCondition(type="ContainersReady", status="True")
        sidecars = {spec.name for spec in self.pod.spec.initContainers if is_sidecar(spec)}
        counted = [*(c for c in status.initContainerStatuses if c.name in sidecars), *status.containerStatuses]
        unready = [c.name for c in counted if not c.ready]
        if status.phase in ("Succeeded", "Failed"):
            condition.status, condition.reason = "False", "PodCompleted" if status.phase == "Succeeded" else "PodFailed"
        elif unready:
            condition.status, condition.reason = "False", "ContainersNotReady"
            condition.message = f"containers with unready status: [{' '.join(unready)}]"
        return condition

    def _readiness_gates(self, ready: core.PodCondition) -> None:
        held = {condition.type: condition.status for condition in self.old.conditions}
        open_gates = [
            gate.conditionType for gate in self.pod.spec.readinessGates if held.get(gate.conditionType) != "True"
        ]
        if ready.status == "True" and open_gates:
            ready.status, ready.reason = "False", "ReadinessGatesNotReady"
            ready.message = (
                f'corresponding condition of pod readiness gate "{open_gates[0]}" does not exist or is not true.'
            )


def started_instances(runtime: PodRuntime, name: str) -> list[Container]:
    """The instances worth reporting, newest first. One that was created and not started yet is no news."""
    return [container for container in runtime.instances(name) if container.state is not State.CREATED]


def latest(runtime: PodRuntime, name: str) -> Container | None:
    """The newest instance that was started."""
    return next(iter(started_instances(runtime, name)), None)


def phase(pod: core.Pod, runtime: PodRuntime) -> str:
    """The pod's phase from its container statuses (Kubernetes pod lifecycle)."""
    if init_failed(pod, runtime):
        return "Failed"
    regular = [latest(runtime, spec.name) for spec in pod.spec.containers]
    if any(container is None for container in regular):
        return "Running" if pod.status.phase == "Running" else "Pending"
    policy = pod.spec.restartPolicy or "Always"
    ended = [container for container in regular if container is not None and container.over]
    if len(ended) < len(regular) or policy == "Always":
        return "Running"
    if all(container.succeeded for container in ended):
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def waiting_of(failure: Failure, image: str, now: float) -> core.ContainerStateWaiting:
    """How a failed start shows. A failed pull shows as itself first, then as the back-off it led to."""
    if failure.reason == "ErrImagePull" and now >= failure.at + IMAGE_BACKOFF_SHOWS_AFTER_S:
        message = f'Back-off pulling image "{image}": ErrImagePull: {failure.message}'
        return core.ContainerStateWaiting(reason="ImagePullBackOff", message=message)
    return core.ContainerStateWaiting(reason=failure.reason, message=failure.message)


def crash_loop(pod: core.Pod, name: str, container: Container) -> core.ContainerStateWaiting:
    """The waiting state of a container that may not start again yet."""
    delay = (
        f"{int(container.backoff_s) // 60}m{int(container.backoff_s) % 60}s"
        if container.backoff_s >= 60
        else f"{int(container.backoff_s)}s"
    )
    where = f"pod={pod.metadata.name}_{pod.metadata.namespace}({pod.metadata.uid})"
    return core.ContainerStateWaiting(
        reason="CrashLoopBackOff", message=f"back-off {delay} restarting failed container={name} {where}"
    )


def stamped(condition: core.PodCondition, old: Iterable[core.PodCondition], now: float) -> core.PodCondition:
    """``condition`` with lastTransitionTime: the old one's while the status is the same, else ``now``."""
    before = next((entry for entry in old if entry.type == condition.type), None)
    if before is not None and before.status == condition.status and before.HasField("lastTransitionTime"):
        condition.lastTransitionTime.CopyFrom(before.lastTransitionTime)
    else:
        condition.lastTransitionTime.CopyFrom(time_of(now))
    return condition


def time_of(seconds: float) -> meta.Time:
    """meta.v1 Time, whole seconds as Kubernetes stores it."""
    return meta.Time(seconds=int(seconds), nanos=0)


def _bool(value: bool) -> str:
    return "True" if value else "False"
