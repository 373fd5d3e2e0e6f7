"""The kubelet's decisions, pure: from a pod and what the runtime has of it to the next CRI actions.

``plan_pod`` is level-triggered: it looks only at what is there now, may be called at any time and as often as one
likes, and needs no memory of its own. The worker executes what it returns and asks again.

The order it keeps (Kubernetes' pod lifecycle): sandbox; init containers one after the other; then all containers at
once. A dead sandbox is replaced and the init containers run again. On deletion containers stop, then the sandbox goes.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from control.kubelet.restart import finished, restart_at, successor_backoff_s
from control.kubelet.state import Container, PodRuntime, State
from protos.k8s import core_v1_pb2 as core

KEPT_INSTANCES = 2
"""Instances kept per container: the current one, and the one before it for its log and lastState."""

DEFAULT_GRACE_S = 30


@dataclass(frozen=True)
class RunSandbox:
    """Start sandbox ``attempt``, after stopping the dead sandboxes in ``replaces``."""

    attempt: int
    replaces: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, ...]:
        """Actions with equal keys never run at the same time."""
        return ("sandbox",)


@dataclass(frozen=True)
class PullImage:
    """Have the image of container ``name`` ready while the sandbox starts."""

    name: str

    @property
    def key(self) -> tuple[str, ...]:
        """See RunSandbox."""
        return ("pull", self.name)


@dataclass(frozen=True)
class StartContainer:
    """Create instance ``attempt`` of container ``name`` and start it; or only start ``created``, if it got that far."""

    name: str
    attempt: int
    sandbox_id: str
    backoff_s: float = 0.0
    created: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """See RunSandbox."""
        return ("start", self.name)


@dataclass(frozen=True)
class StopContainer:
    """Ask container ``id`` to end within ``grace_s`` seconds, then kill it. ``reason`` is the Killing event's text."""

    id: str
    name: str
    grace_s: int
    reason: str
    order: int = 0

    @property
    def key(self) -> tuple[str, ...]:
        """A shorter grace period is another order, given while the first one is still being carried out."""
        return ("stop", self.id, str(self.order))


@dataclass(frozen=True)
class RemoveContainer:
    """Forget container ``id``."""

    id: str

    @property
    def key(self) -> tuple[str, ...]:
        """See RunSandbox."""
        return ("remove", self.id)


@dataclass(frozen=True)
class StopSandbox:
    """Stop sandbox ``id`` but keep its records: the pod is over and its logs stay readable."""

    id: str

    @property
    def key(self) -> tuple[str, ...]:
        """See RunSandbox."""
        return ("stop", self.id)


@dataclass(frozen=True)
class RemoveSandbox:
    """Stop and forget sandbox ``id`` with all its containers."""

    id: str

    @property
    def key(self) -> tuple[str, ...]:
        """See RunSandbox."""
        return ("remove", self.id)


@dataclass(frozen=True)
class FinishPod:
    """Nothing of the deleted pod is left on this node: its object may go."""

    @property
    def key(self) -> tuple[str, ...]:
        """See RunSandbox."""
        return ("finish",)


Action = (
    RunSandbox | PullImage | StartContainer | StopContainer | RemoveContainer | StopSandbox | RemoveSandbox | FinishPod
)


@dataclass(frozen=True)
class Probed:
    """What the probes say of one running container. ``failed`` is the kind of probe that wants it restarted, or ""."""

    ready: bool = True
    started: bool = True
    failed: str = ""
    grace_s: int | None = None


@dataclass(frozen=True)
class Failure:
    """An attempt to start something failed before the runtime had a container to show for it.

    ``reason`` and ``message`` show as the container's waiting state; nothing is tried again before ``retry_at``.
    """

    reason: str
    message: str
    at: float
    retry_at: float


@dataclass(frozen=True)
class View:
    """What the kubelet knows beside the runtime: probe results by container id, failures by container name ("" =
    pod).
    """

    probes: Mapping[str, Probed] = field(default_factory=dict)
    failures: Mapping[str, Failure] = field(default_factory=dict)

    def probed(self, container: Container) -> Probed:
        """The probe results of ``container``; a container without probes is started and ready."""
        return self.probes.get(container.id, Probed())


@dataclass(frozen=True)
class Plan:
    """What to do now, and when to ask again though nothing happened (seconds since the epoch)."""

    actions: tuple[Action, ...] = ()
    wake_at: float | None = None


def plan_pod(pod: core.Pod | None, runtime: PodRuntime, view: View, now: float) -> Plan:
    """The next actions for a pod. ``pod`` is None when the API knows no such pod: what runs of it must go."""
    if pod is None:
        return _plan_removal(runtime, runtime.grace_s, "Stopping container {}")
    if pod.metadata.HasField("deletionTimestamp"):
        return _plan_deletion(pod, runtime, now)
    if over(pod) or deadline_passed(pod, now):
        return _plan_rest(pod, runtime)
    return _Planner(pod, runtime, view, now).plan()


def over(pod: core.Pod) -> bool:
    """True once the pod's phase is final: a phase never goes back from there."""
    return pod.status.phase in ("Succeeded", "Failed")


def deadline_passed(pod: core.Pod, now: float) -> bool:
    """True if the pod has been active for longer than spec.activeDeadlineSeconds."""
    limited = pod.spec.HasField("activeDeadlineSeconds") and pod.status.HasField("startTime")
    return limited and now >= pod.status.startTime.seconds + pod.spec.activeDeadlineSeconds


def grace_of(pod: core.Pod) -> int:
    """The pod's termination grace period, seconds."""
    return (
        pod.spec.terminationGracePeriodSeconds
        if pod.spec.HasField("terminationGracePeriodSeconds")
        else DEFAULT_GRACE_S
    )


def is_sidecar(spec: core.Container) -> bool:
    """True for an init container that keeps running beside the others."""
    return spec.restartPolicy == "Always"


def _plan_deletion(pod: core.Pod, runtime: PodRuntime, now: float) -> Plan:
    """Stop with what is left of the grace period; a kubelet that restarts meanwhile does not start it afresh."""
    total = pod.metadata.deletionGracePeriodSeconds
    left = math.ceil(pod.metadata.deletionTimestamp.seconds + 1 - now)
    if runtime.empty:
        return Plan((FinishPod(),))
    return _plan_removal(
        runtime, max(min(total, left), 0 if total == 0 else 1), "Stopping container {}", order=total, pod=pod
    )


def _plan_removal(runtime: PodRuntime, grace_s: int, reason: str, order: int = 0, pod: core.Pod | None = None) -> Plan:
    sidecars = {spec.name for spec in pod.spec.initContainers if is_sidecar(spec)} if pod is not None else set()
    running = [container for container in runtime.containers if container.running]
    first = [container for container in running if container.name not in sidecars] or running
    if first:
        return Plan(tuple(StopContainer(c.id, c.name, grace_s, reason.format(c.name), order) for c in first))
    return Plan(tuple(RemoveSandbox(sandbox.id) for sandbox in runtime.sandboxes))


def _plan_rest(pod: core.Pod, runtime: PodRuntime) -> Plan:
    """A pod that is over keeps its containers for their logs, but runs nothing and holds no network."""
    running = [container for container in runtime.containers if container.running]
    if running:
        return Plan(tuple(StopContainer(c.id, c.name, grace_of(pod), f"Stopping container {c.name}") for c in running))
    return Plan(tuple(StopSandbox(sandbox.id) for sandbox in runtime.sandboxes if sandbox.ready))


class _Planner:
    """Collects the actions of a pod that should be running."""

    def __init__(self, pod: core.Pod, runtime: PodRuntime, view: View, now: float) -> None:
        self.pod, self.runtime, self.view, self.now = pod, runtime, view, now
        self.policy = pod.spec.restartPolicy or "Always"
        self.actions: list[Action] = []
        self.wakes: list[float] = []

    def plan(self) -> Plan:
        if pod_finished(self.pod, self.runtime):
            return _plan_rest(self.pod, self.runtime)
        if self.pod.spec.HasField("activeDeadlineSeconds") and self.pod.status.HasField("startTime"):
            self.wakes.append(self.pod.status.startTime.seconds + self.pod.spec.activeDeadlineSeconds)
        if self.runtime.sandbox is None:
            self._plan_sandbox()
        elif self._initialised():
            for spec in self.pod.spec.containers:
                self._advance(spec, self.policy)
        self._forget_old_instances()
        return Plan(tuple(self.actions), min(self.wakes, default=None))

    def _plan_sandbox(self) -> None:
        first = self.pod.spec.initContainers[:1] or self.pod.spec.containers
        self.actions += [PullImage(spec.name) for spec in first if not self._held_back(spec.name)]
        if not self._held_back(""):
            old = self.runtime.sandboxes
            attempt = old[0].attempt + 1 if old else 0
            self.actions.append(RunSandbox(attempt, tuple(sandbox.id for sandbox in old)))

    def _initialised(self) -> bool:
        """Advance the init containers; True when the containers proper may run."""
        started = any(self.runtime.in_sandbox(spec.name) for spec in self.pod.spec.containers)
        for spec in self.pod.spec.initContainers:
            sidecar = is_sidecar(spec)
            if started and not sidecar:
                continue
            container = self.runtime.in_sandbox(spec.name)
            if container is not None and container.succeeded and not sidecar:
                continue
            self._advance(spec, "Always" if sidecar or self.policy == "Always" else self.policy, rerun=True)
            up = sidecar and container is not None and container.running and self.view.probed(container).started
            if not up and not started:
                return False
        return True

    def _advance(self, spec: core.Container, policy: str, rerun: bool = False) -> None:
        """Bring one container on: start it, start it again when due, or stop it for a reason.

        ``rerun``: what it did in an earlier sandbox does not count (init containers).
        """
        container = self.runtime.in_sandbox(spec.name)
        last = self.runtime.newest(spec.name)
        if container is not None and container.running:
            self._check_running(spec, container)
        elif container is not None and container.state is State.CREATED:
            self._start(spec, container.attempt, container.backoff_s, created=container.id)
        elif last is None:
            self._start(spec, 0, 0.0)
        elif container is None and (rerun or not last.over):
            self._start(spec, last.attempt + 1, last.backoff_s)
        elif not finished(last, policy):
            self._restart(spec, last)

    def _check_running(self, spec: core.Container, container: Container) -> None:
        probed = self.view.probed(container)
        if container.spec_hash and container.spec_hash != spec_hash(spec):
            self._stop(container, f"Container {spec.name} definition changed, will be restarted")
        elif probed.failed:
            self._stop(
                container, f"Container {spec.name} failed {probed.failed} probe, will be restarted", probed.grace_s
            )

    def _restart(self, spec: core.Container, last: Container) -> None:
        due = restart_at(last)
        if due > self.now:
            self.wakes.append(due)
        else:
            self._start(spec, last.attempt + 1, successor_backoff_s(last))

    def _start(self, spec: core.Container, attempt: int, backoff_s: float, created: str = "") -> None:
        if self.runtime.sandbox is not None and not self._held_back(spec.name):
            self.actions.append(StartContainer(spec.name, attempt, self.runtime.sandbox.id, backoff_s, created))

    def _stop(self, container: Container, reason: str, grace_s: int | None = None) -> None:
        chosen = grace_of(self.pod) if grace_s is None else grace_s
        self.actions.append(StopContainer(container.id, container.name, chosen, reason))

    def _held_back(self, name: str) -> bool:
        failure = self.view.failures.get(name)
        if failure is None or failure.retry_at <= self.now:
            return False
        self.wakes.append(failure.retry_at)
        return True

    def _forget_old_instances(self) -> None:
        names = {container.name for container in self.runtime.containers}
        for name in sorted(names):
            stale = [c for c in self.runtime.instances(name)[KEPT_INSTANCES:] if not c.running]
            self.actions += [RemoveContainer(container.id) for container in stale]
        used = {container.sandbox_id for container in self.runtime.containers}
        self.actions += [RemoveSandbox(s.id) for s in self.runtime.sandboxes[1:] if s.id not in used]


def pod_finished(pod: core.Pod, runtime: PodRuntime) -> bool:
    """True when every container has ended and none may run again, or an init container failed for good."""
    policy = pod.spec.restartPolicy or "Always"
    return init_failed(pod, runtime) or all(_rests(spec, runtime, policy) for spec in pod.spec.containers)


def init_failed(pod: core.Pod, runtime: PodRuntime) -> bool:
    """True when an init container failed and the restart policy does not let it try again."""
    last = [runtime.newest(spec.name) for spec in pod.spec.initContainers if not is_sidecar(spec)]
    return pod.spec.restartPolicy == "Never" and any(c is not None and c.over and not c.succeeded for c in last)


def _rests(spec: core.Container, runtime: PodRuntime, policy: str) -> bool:
    newest = runtime.newest(spec.name)
    return newest is not None and finished(newest, policy)


def spec_hash(spec: core.Container) -> str:
    """A short hash of the parts of a container whose change means a new container: its name and image."""
    from hashlib import sha256

    return sha256(f"{spec.name}\0{spec.image}".encode()).hexdigest()[:8]


def specs(pod: core.Pod) -> Iterable[core.Container]:
    """Every container of the pod, init containers first."""
    return [*pod.spec.initContainers, *pod.spec.containers]
