"""What all pods of a node share, and what one pod's parts tell each other."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from control.api import meta
from control.client import Client
from control.client.events import EventRecorder
from control.kubelet.config import Node
from control.kubelet.http import Http
from control.kubelet.images import Images
from control.kubelet.runtime import Runtime
from control.kubelet.state import PodRuntime
from control.kubelet.volumes import Volumes
from protos.k8s import core_v1_pb2 as core


@dataclass
class Services:
    """What all pods of a node share."""

    client: Client
    runtime: Runtime
    images: Images
    volumes: Volumes
    node: Node
    recorder: EventRecorder
    http: Http
    service_list: Callable[[], list[core.Service]]
    runtime_name: str = "knarr"
    allocatable: dict[str, str] = field(default_factory=dict)
    now: Callable[[], float] = time.time


class Subject:
    """One pod as it is known now: by the API (``pod``, None if it has no such pod) and by the runtime (last seen)."""

    def __init__(self, services: Services, uid: str) -> None:
        self.services, self.uid = services, uid
        self.pod: core.Pod | None = None
        self.last_pod: core.Pod | None = None
        self.runtime: PodRuntime | None = None

    def accept(self, pod: core.Pod) -> bool:
        """Take over a version of the pod, unless a newer one is known. True if it was taken."""
        if self.pod is not None and _version(pod) < _version(self.pod):
            return False
        self.pod = self.last_pod = pod
        return True

    @property
    def name(self) -> str:
        """The pod's name, for messages."""
        return self.last_pod.metadata.name if self.last_pod is not None else self.uid

    @property
    def key(self) -> str:
        """``namespace/name``, for logs."""
        if self.last_pod is not None:
            return meta.key(self.last_pod)
        return f"{self.runtime.namespace}/{self.runtime.name}" if self.runtime is not None else self.uid

    @property
    def ips(self) -> tuple[str, ...]:
        """The pod's addresses: the node's own with hostNetwork; none while it has no sandbox."""
        sandbox = self.runtime.sandbox if self.runtime is not None else None
        if self.last_pod is not None and self.last_pod.spec.hostNetwork:
            return (self.services.node.ip,) if self.services.node.ip else ()
        return sandbox.ips if sandbox is not None else ()

    def spec(self, name: str) -> core.Container | None:
        """The spec of container ``name``."""
        if self.last_pod is None:
            return None
        every = (*self.last_pod.spec.initContainers, *self.last_pod.spec.containers)
        return next((spec for spec in every if spec.name == name), None)

    def event(self, type_: str, reason: str, message: str, container: str = "") -> None:
        """Record an event about the pod or one of its containers."""
        if self.last_pod is None:
            return
        init = {spec.name for spec in self.last_pod.spec.initContainers}
        part = "initContainers" if container in init else "containers"
        path = f"spec.{part}{{{container}}}" if container else ""
        tell = self.services.recorder.normal if type_ == "Normal" else self.services.recorder.warning
        tell(self.last_pod, reason, message, path)


def _version(pod: core.Pod) -> int:
    return int(pod.metadata.resourceVersion or 0)
