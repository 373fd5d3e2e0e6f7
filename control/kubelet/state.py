"""What the runtime has of one pod, as values: the only truth about containers that the kubelet knows.

There is no database beside it. What the kubelet must remember about a container (its restart count, the back-off its
successor owes, the hash of the spec it was made from) is written into the container's CRI metadata and annotations
when it is created, so a restarted kubelet reads it back with the list.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from protos.cri import runtime_pb2 as cri

POD_NAME = "io.kubernetes.pod.name"
POD_NAMESPACE = "io.kubernetes.pod.namespace"
POD_UID = "io.kubernetes.pod.uid"
CONTAINER_NAME = "io.kubernetes.container.name"
HASH = "io.kubernetes.container.hash"
RESTART_COUNT = "io.kubernetes.container.restartCount"
MESSAGE_PATH = "io.kubernetes.container.terminationMessagePath"
GRACE = "io.kubernetes.pod.terminationGracePeriod"
BACKOFF = "knarr.dev/restart-backoff-seconds"

NS = 1_000_000_000


class State(Enum):
    """A container's state (CRI ContainerState)."""

    CREATED = cri.CONTAINER_CREATED
    RUNNING = cri.CONTAINER_RUNNING
    EXITED = cri.CONTAINER_EXITED
    UNKNOWN = cri.CONTAINER_UNKNOWN


@dataclass(frozen=True, slots=True)
class Container:
    """One instance of a container. ``attempt`` counts instances of the same name from 0: it is the restart count."""

    id: str
    name: str
    attempt: int
    sandbox_id: str
    state: State
    created_s: float = 0.0
    started_s: float = 0.0
    finished_s: float = 0.0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    image: str = ""
    image_id: str = ""
    image_ref: str = ""
    spec_hash: str = ""
    backoff_s: float = 0.0
    log_path: str = ""
    message_path: str = ""

    @property
    def running(self) -> bool:
        """True while its process runs."""
        return self.state is State.RUNNING

    @property
    def over(self) -> bool:
        """True once it will never run again. A container that the runtime lost track of counts as over."""
        return self.state in (State.EXITED, State.UNKNOWN)

    @property
    def succeeded(self) -> bool:
        """True for an exit with code 0."""
        return self.state is State.EXITED and self.exit_code == 0


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One pod sandbox. ``attempt`` counts the pod's sandboxes from 0."""

    id: str
    attempt: int
    ready: bool
    created_s: float = 0.0
    ips: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PodRuntime:
    """The sandboxes and containers of one pod. Invariant: both are newest first."""

    uid: str
    name: str = ""
    namespace: str = ""
    sandboxes: tuple[Sandbox, ...] = ()
    containers: tuple[Container, ...] = ()
    grace_s: int = 30

    @property
    def empty(self) -> bool:
        """True when the runtime has nothing of the pod."""
        return not self.sandboxes and not self.containers

    @property
    def sandbox(self) -> Sandbox | None:
        """The sandbox in which containers may run: the newest one, if it is ready."""
        newest = self.sandboxes[0] if self.sandboxes else None
        return newest if newest is not None and newest.ready else None

    def instances(self, name: str) -> list[Container]:
        """Every instance of container ``name``, newest first, whichever sandbox it is in."""
        return [container for container in self.containers if container.name == name]

    def newest(self, name: str) -> Container | None:
        """The newest instance of container ``name``."""
        return next((container for container in self.containers if container.name == name), None)

    def in_sandbox(self, name: str) -> Container | None:
        """The newest instance of ``name``, if it belongs to the live sandbox."""
        newest, sandbox = self.newest(name), self.sandbox
        return newest if newest is not None and sandbox is not None and newest.sandbox_id == sandbox.id else None


def sandbox_of(item: cri.PodSandbox, status: cri.PodSandboxStatus | None) -> Sandbox:
    """The sandbox of a list item and, when it was asked for, its status (which alone has the addresses)."""
    ips: tuple[str, ...] = ()
    if status is not None and status.network.ip:
        ips = (status.network.ip, *(extra.ip for extra in status.network.additional_ips))
    ready = (status or item).state == cri.SANDBOX_READY
    return Sandbox(item.id, item.metadata.attempt, ready, item.created_at / NS, ips)


def container_of(item: cri.Container, status: cri.ContainerStatus) -> Container:
    """The container of a list item (which alone names its sandbox) and its status."""
    notes = status.annotations
    return Container(
        id=status.id,
        name=status.metadata.name,
        attempt=status.metadata.attempt,
        sandbox_id=item.pod_sandbox_id,
        state=State(status.state),
        created_s=status.created_at / NS,
        started_s=status.started_at / NS,
        finished_s=status.finished_at / NS,
        exit_code=255 if status.state == cri.CONTAINER_UNKNOWN else status.exit_code,
        reason=status.reason,
        message=status.message,
        image=status.image.image,
        image_id=status.image_id or item.image_id,
        image_ref=status.image_ref,
        spec_hash=notes.get(HASH, ""),
        backoff_s=float(notes.get(BACKOFF, "0")),
        log_path=status.log_path,
        message_path=notes.get(MESSAGE_PATH, ""),
    )


def pod_runtime(uid: str, sandboxes: Iterable[Sandbox], containers: Iterable[Container]) -> PodRuntime:
    """Assemble and sort: newest first, by attempt and then by age."""
    return PodRuntime(
        uid,
        sandboxes=tuple(sorted(sandboxes, key=lambda s: (s.attempt, s.created_s), reverse=True)),
        containers=tuple(sorted(containers, key=lambda c: (c.attempt, c.created_s), reverse=True)),
    )


def named(runtime: PodRuntime, labels: "dict[str, str]", annotations: "dict[str, str]") -> PodRuntime:
    """``runtime`` with the pod's identity as its sandbox's labels and annotations tell it."""
    return replace(
        runtime,
        name=labels.get(POD_NAME, runtime.name),
        namespace=labels.get(POD_NAMESPACE, runtime.namespace),
        grace_s=int(annotations.get(GRACE, runtime.grace_s)),
    )
