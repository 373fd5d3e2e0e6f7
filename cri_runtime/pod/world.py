"""What every part of the pod room works on: the tables in memory, and the hands that reach disk, kernel and network."""

import asyncio
import logging
import os
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cri_runtime.cgroups import Cgroups
from cri_runtime.images.manifest import ImageConfig
from cri_runtime.linux.process import bounding_set
from cri_runtime.network.types import Network
from cri_runtime.pod.ancestors import Ancestors
from cri_runtime.pod.client import Supervisor, Zygote
from cri_runtime.pod.errors import AmbiguousId, NotFound, ShimFailed
from cri_runtime.pod.events import Events
from cri_runtime.pod.records import ContainerRecord, Records, SandboxRecord

log = logging.getLogger(__name__)

DEFAULT_CGROUP_PARENT = "/knarr"


class ImageLike(Protocol):
    """What a container needs to know of its image."""

    @property
    def id(self) -> str:
        """Digest of its config."""

    @property
    def repo_digests(self) -> Sequence[str]:
        """Names by digest."""

    @property
    def config(self) -> ImageConfig:
        """How to run it."""


class Images(Protocol):
    """What the pod room needs of :class:`cri_runtime.images.store.ImageStore`; see there."""

    def get(self, reference: str) -> Any:
        """An :class:`ImageLike`. Raises ImageNotFound."""

    async def lower_dirs(self, image_id: str) -> Sequence[Path]:
        """Layers, topmost first."""

    def pin(self, image_id: str, holder: str) -> None:
        """A container uses it."""

    def unpin(self, image_id: str, holder: str) -> None:
        """No longer."""


@dataclass(eq=False)
class Container:
    """A container in memory. ``lock`` serialises what changes it; ``exited`` is set once it is EXITED."""

    record: ContainerRecord
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    cpu_sample: tuple[int, int] = (0, 0)
    """(time, usage) of the last look, nanoseconds; the rate comes from two."""
    early: dict[str, int] = field(default_factory=dict)
    """While CREATED: pipes of who attached already, by stream."""

    def close_early(self) -> None:
        """Let go of the pipes of who attached before the start. Idempotent."""
        for fd in self.early.values():
            os.close(fd)
        self.early = {}

    def set(self, record: ContainerRecord) -> None:
        """Replace the record."""
        self.record = record
        if record.status.state == "exited":
            self.exited.set()


@dataclass(eq=False)
class Sandbox:
    """A pod sandbox in memory. ``supervisor`` is None once it is gone."""

    record: SandboxRecord
    supervisor: Supervisor | None = None
    ended: bool = False
    """NOTREADY, and nothing of it is left but its record and what its containers wrote."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    execs: dict[str, "asyncio.Future[int]"] = field(default_factory=dict)
    cpu_sample: tuple[int, int] = (0, 0)

    def require_supervisor(self) -> Supervisor:
        """Raises ShimFailed when it is gone."""
        if self.supervisor is None:
            raise ShimFailed("reach the supervisor", 0, "", "the pod is stopped or dead")
        return self.supervisor


@dataclass
class World:
    """One node's pods."""

    root: Path
    state: Path
    records: Records
    cgroups: Cgroups
    images: Images
    network: Network
    zygote: Zygote
    ancestors: Ancestors = field(init=False)
    events: Events = field(default_factory=Events)
    sandboxes: dict[str, Sandbox] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)
    names: set[tuple[Any, ...]] = field(default_factory=set)
    """Names in use, also by what is being made."""
    available_capabilities: int = field(default_factory=bounding_set)

    tasks: asyncio.TaskGroup | None = None
    """The parent of what goes on between calls; set while the service runs."""

    def __post_init__(self) -> None:
        self.ancestors = Ancestors(self.state, self.cgroups)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` as a child of the service."""
        if self.tasks is None:
            work.close()
            return
        self.tasks.create_task(work)

    def sandbox(self, name: str) -> Sandbox:
        """By id or unique prefix. Raises NotFound, AmbiguousId."""
        return _find(self.sandboxes, name, "pod sandbox")

    def container(self, name: str) -> Container:
        """By id or unique prefix. Raises NotFound, AmbiguousId."""
        return _find(self.containers, name, "container")

    def containers_of(self, sandbox_id: str) -> list[Container]:
        """The sandbox's containers, oldest first."""
        return [container for container in self.containers.values() if container.record.sandbox_id == sandbox_id]

    def sandbox_state(self, sandbox_id: str) -> Path:
        """Where a sandbox's sockets, pins and small files are; gone after a reboot."""
        return self.state / "pods" / sandbox_id

    def container_home(self, container_id: str) -> Path:
        """Where a container's spec, status and writable layer are."""
        return self.root / "containers" / container_id


T = TypeVar("T")


def _find(table: dict[str, T], name: str, kind: str) -> T:
    found = table.get(name)
    if found is not None:
        return found
    matches = [key for key in table if key.startswith(name)] if name else []
    if len(matches) > 1:
        raise AmbiguousId(f'"{name}" begins the ids of {len(matches)} of kind {kind}; give more digits')
    if not matches:
        raise NotFound(kind, name)
    return table[matches[0]]


def sandbox_name(record: SandboxRecord) -> tuple[Any, ...]:
    """What must be unique among sandboxes."""
    meta = record.message.metadata
    return ("sandbox", meta.name, meta.namespace, meta.uid, meta.attempt)


def container_name(record: ContainerRecord) -> tuple[Any, ...]:
    """What must be unique among containers."""
    meta = record.message.metadata
    return ("container", record.sandbox_id, meta.name, meta.attempt)
