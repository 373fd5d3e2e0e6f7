"""The records of sandboxes and containers, and their place on disk.

One JSON file per object in ``records/{sandboxes,containers}``. A record appears and changes atomically and durably
(file synced, renamed, directory synced) before anyone is told; all disk work happens in one thread.
"""

import asyncio
import base64
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from protos.cri import runtime_pb2 as cri

T = TypeVar("T")


@dataclass(frozen=True)
class SandboxRecord:
    """A pod sandbox. ``config`` is CRI's PodSandboxConfig, serialized."""

    id: str
    config: bytes
    runtime_handler: str
    created_at: int
    ready: bool
    host_network: bool
    ips: tuple[str, ...] = ()

    @property
    def message(self) -> cri.PodSandboxConfig:
        """The config as a message."""
        return cri.PodSandboxConfig.FromString(self.config)


@dataclass(frozen=True)
class Status:
    """How far a container has come; what its supervisor reports. ``state``: created, running, exited."""

    state: str = "created"
    pid: int = 0
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class ContainerRecord:
    """A container. ``config`` is CRI's ContainerConfig, serialized; ``resources`` the LinuxContainerResources now."""

    id: str
    sandbox_id: str
    config: bytes
    image_id: str
    image_ref: str
    created_at: int
    cgroup: str
    log_path: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    stop_signal: int
    resources: bytes
    tty: bool = False
    stdin: bool = False
    status: Status = field(default_factory=Status)

    @property
    def message(self) -> cri.ContainerConfig:
        """The config as a message."""
        return cri.ContainerConfig.FromString(self.config)


Record = SandboxRecord | ContainerRecord


def encode(record: Record) -> bytes:
    """The record as JSON; bytes become base64. A container's status is in a file of its supervisor's."""
    row = {name: value for name, value in vars(record).items() if name != "status"}
    return json.dumps(row, default=lambda value: base64.b64encode(value).decode()).encode()


def decode_sandbox(data: bytes) -> SandboxRecord:
    """Raises ValueError, KeyError, TypeError for what is no record."""
    row = json.loads(data)
    return SandboxRecord(**_plain(row, ("config",), ("ips",)))


def decode_container(data: bytes) -> ContainerRecord:
    """Raises ValueError, KeyError, TypeError for what is no record."""
    return ContainerRecord(**_plain(json.loads(data), ("config", "resources"), ("groups",)))


def _plain(row: dict[str, Any], binary: tuple[str, ...], tuples: tuple[str, ...]) -> dict[str, Any]:
    changed = {name: base64.b64decode(row[name]) for name in binary}
    return {**row, **changed, **{name: tuple(row[name]) for name in tuples}}


class Records:
    """The records below ``root``. Close it after use."""

    def __init__(self, root: Path) -> None:
        self._sandboxes = root / "records" / "sandboxes"
        self._containers = root / "records" / "containers"
        for directory in (self._sandboxes, self._containers):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="records")

    async def save(self, record: Record) -> None:
        """Make the record durable. A cancelled save still happens. Raises OSError."""
        await asyncio.shield(self.run(write_durably, self._path(record), encode(record)))

    async def delete(self, record: Record) -> None:
        """Forget the record. Idempotent. Raises OSError."""
        await asyncio.shield(self.run(_unlink_durably, self._path(record)))

    def run(self, function: Callable[..., T], *args: Any) -> "asyncio.Future[T]":
        """Run blocking disk work in the records' thread, after what was asked for before."""
        return asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    def load(self) -> tuple[list[SandboxRecord], list[ContainerRecord], list[Path]]:
        """All records, and files that are none (left by a crash, or damaged). For start-up: it blocks."""
        unreadable: list[Path] = []
        sandboxes = _load(self._sandboxes, decode_sandbox, unreadable)
        return sandboxes, _load(self._containers, decode_container, unreadable), unreadable

    def load_container(self, container_id: str) -> list[ContainerRecord]:
        """The container's record, if it has one."""
        try:
            return [decode_container((self._containers / f"{container_id}.json").read_bytes())]
        except FileNotFoundError:
            return []

    def close(self) -> None:
        """Finish what was asked for."""
        self._thread.shutdown()

    def _path(self, record: Record) -> Path:
        home = self._sandboxes if isinstance(record, SandboxRecord) else self._containers
        return home / f"{record.id}.json"


def _load(directory: Path, decode: Callable[[bytes], T], unreadable: list[Path]) -> list[T]:
    found: list[T] = []
    for path in sorted(directory.iterdir()):
        try:
            if path.suffix != ".json":
                raise ValueError(path)
            found.append(decode(path.read_bytes()))
        except (ValueError, KeyError, TypeError):
            unreadable.append(path)
    return found


def write_durably(path: Path, data: bytes) -> None:
    """Write atomically; when it returns the file survives a loss of power. Raises OSError."""
    temporary = path.with_suffix(".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.rename(path)
    sync_directory(path.parent)


def _unlink_durably(path: Path) -> None:
    path.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames and unlinks in the directory durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
