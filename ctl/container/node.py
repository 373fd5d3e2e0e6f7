"""One node's containers: what the runtime knows of them, and the moves between their states.

A container lives through attempts, each one pod sandbox with one CRI container: CRI starts a container once. Its newest
attempt is what it is now. What nobody waits for is tidied by the next command: there is no daemon of ours.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctl.container import spec as specs
from ctl.container.group import DaemonError
from ctl.container.spec import ID_LABEL, SPEC_ANNOTATION, Spec

if TYPE_CHECKING:
    from ctl.lab.layout import Layout

LOCK = "attached"
START_ERROR = "StartError"


@dataclass(frozen=True)
class Attempt:
    """A pod sandbox and, unless something went wrong between the two, its container."""

    sandbox: Any
    container: Any = None

    @property
    def number(self) -> int:
        """0, 1, ..."""
        return int(self.sandbox.metadata.attempt)


@dataclass(frozen=True)
class Container:
    """A container as docker has it."""

    spec: Spec
    attempts: tuple[Attempt, ...]  # newest first

    @property
    def now(self) -> Attempt:
        """The newest attempt."""
        return self.attempts[0]

    @property
    def sandbox_id(self) -> str:
        """The newest attempt's pod sandbox."""
        return str(self.now.sandbox.id)

    @property
    def cri_id(self) -> str:
        """The newest attempt's CRI container; empty when it was never made."""
        return str(self.now.container.id) if self.now.container else ""

    @property
    def is_running(self) -> bool:
        """By the list's state."""
        from protos.cri import runtime_pb2 as pb

        return bool(self.now.container) and self.now.container.state == pb.CONTAINER_RUNNING

    @property
    def is_ready(self) -> bool:
        """Its pod holds its network."""
        from protos.cri import runtime_pb2 as pb

        return bool(self.now.sandbox.state == pb.SANDBOX_READY)

    @property
    def is_exited(self) -> bool:
        """It ran, or could not be started."""
        from protos.cri import runtime_pb2 as pb

        return bool(self.now.container) and self.now.container.state == pb.CONTAINER_EXITED


class Node:
    """The runtime and the folders beside it: logs and volumes of containers lie in the state directory."""

    def __init__(self, endpoint: str, channel: Any, layout: "Layout") -> None:
        from protos.cri.runtime_pb2_grpc import RuntimeServiceStub
        from protos.knarr.images_pb2_grpc import ImagesStub

        self.endpoint = endpoint
        self.cri: RuntimeServiceStub = RuntimeServiceStub(channel)
        self.images: ImagesStub = ImagesStub(channel)
        self._folder = layout.state_dir / "containers"
        self.volumes = layout.state_dir / "volumes"

    # --- what is there

    async def containers(self) -> list[Container]:
        """All of them, newest first."""
        from protos.cri import runtime_pb2 as pb

        sandboxes = (await self.cri.ListPodSandbox(pb.ListPodSandboxRequest())).items
        ours = [sandbox for sandbox in sandboxes if SPEC_ANNOTATION in sandbox.annotations]
        inside = (await self.cri.ListContainers(pb.ListContainersRequest())).containers if ours else []
        by_sandbox = {container.pod_sandbox_id: container for container in inside}
        grouped: dict[str, list[Attempt]] = {}
        for sandbox in ours:
            grouped.setdefault(sandbox.labels[ID_LABEL], []).append(Attempt(sandbox, by_sandbox.get(sandbox.id)))
        found = [_container(sorted(attempts, key=lambda a: -a.number)) for attempts in grouped.values()]
        return sorted(found, key=lambda container: -container.spec.created_ns)

    async def find(self, name: str) -> Container:
        """By name, id, or the beginning of one. Raises DaemonError in docker's words."""
        return choose(await self.containers(), name)

    async def status(self, container: Container) -> tuple[Any, dict[str, Any]]:
        """(ContainerStatus, the verbose info: pid, cgroup, spec) of the newest attempt."""
        from protos.cri import runtime_pb2 as pb

        request = pb.ContainerStatusRequest(container_id=container.cri_id, verbose=True)
        answer = await self.cri.ContainerStatus(request)
        return answer.status, json.loads(answer.info.get("info", "{}"))

    async def addresses(self, container: Container) -> list[str]:
        """The pod's addresses."""
        from protos.cri import runtime_pb2 as pb

        request = pb.PodSandboxStatusRequest(pod_sandbox_id=container.sandbox_id)
        network = (await self.cri.PodSandboxStatus(request)).status.network
        return [ip for ip in (network.ip, *(more.ip for more in network.additional_ips)) if ip]

    def folder(self, container_id: str) -> Path:
        """Where a container's log is."""
        return self._folder / container_id

    # --- from nothing to CREATED

    async def create(self, spec: Spec, attempt: int = 0) -> Container:
        """Make an attempt, without starting it. Raises what the runtime refuses, having left nothing."""
        from protos.cri import runtime_pb2 as pb

        folder = self.folder(spec.id)
        folder.mkdir(parents=True, exist_ok=True)
        config = specs.sandbox_config(spec, attempt, str(folder))
        try:
            sandbox = (await self.cri.RunPodSandbox(pb.RunPodSandboxRequest(config=config))).pod_sandbox_id
            try:
                await self._create_in(sandbox, spec, attempt, config)
            except BaseException:
                await self._remove_sandbox(sandbox)
                raise
        except BaseException:
            if attempt == 0:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        return await self.find(spec.id)

    async def _create_in(self, sandbox: str, spec: Spec, attempt: int, sandbox_config: Any) -> None:
        from protos.cri import runtime_pb2 as pb

        for mount in spec.mounts:
            if mount.kind != "tmpfs" and not Path(mount.source).exists():  # docker's habit
                Path(mount.source).mkdir(parents=True)
        config = specs.container_config(spec, attempt, self._tmpfs_places(spec))
        for place in self._tmpfs_places(spec).values():
            Path(place).mkdir(parents=True, exist_ok=True)
        request = pb.CreateContainerRequest(pod_sandbox_id=sandbox, config=config, sandbox_config=sandbox_config)
        await self.cri.CreateContainer(request)

    def _tmpfs_places(self, spec: Spec) -> dict[str, str]:
        targets = [mount.target for mount in spec.mounts if mount.kind == "tmpfs"]
        return {target: str(self.folder(spec.id) / f"tmpfs-{index}") for index, target in enumerate(targets)}

    # --- start

    async def start(self, container: Container) -> None:
        """Start the newest attempt, which is CREATED. Raises DaemonError, with docker's code for what cannot run."""
        import grpc

        from protos.cri import runtime_pb2 as pb

        with self._tmpfs_mounted(container.spec):
            try:
                await self.cri.StartContainer(pb.StartContainerRequest(container_id=container.cri_id))
            except grpc.aio.AioRpcError as err:
                await self.release(container)
                raise DaemonError(err.details() or "", code_of_failed_start(err.details() or "")) from err

    @contextlib.contextmanager
    def _tmpfs_mounted(self, spec: Spec) -> Iterator[None]:
        """Mounts of our own while the container starts: it keeps what it bound, we keep nothing."""
        from cri_runtime.linux.constants import MNT_DETACH, MS_NODEV, MS_NOEXEC, MS_NOSUID
        from cri_runtime.linux.mount import mount, umount2

        places = self._tmpfs_places(spec)
        options = {m.target: tmpfs_data(m.options) for m in spec.mounts if m.kind == "tmpfs"}
        mounted: list[str] = []
        try:
            for target, place in places.items():
                flags, data = options[target]
                mount("tmpfs", place, "tmpfs", MS_NOSUID | MS_NODEV | (0 if "exec" in flags else MS_NOEXEC), data)
                mounted.append(place)
            yield
        finally:
            for place in mounted:
                umount2(place, MNT_DETACH)

    async def next_attempt(self, container: Container) -> Container:
        """A CREATED attempt of a container that is not running, with the writable layer of the one before.

        The layer changes hands by one rename of a directory: before it the old attempt has it, after it the new one;
        a crash in between is made good by the next start.
        """
        from protos.cri import runtime_pb2 as pb

        if container.now.container is None:  # a crash between pod and container
            await self._remove_sandbox(container.sandbox_id)
            rest = container.attempts[1:]
            container = replace(container, attempts=rest) if rest else await self.create(container.spec)
        elif container.is_exited or not container.is_ready:
            await self.cri.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=container.sandbox_id))
            container = await self.create(container.spec, container.now.number + 1)
        for older in container.attempts[1:]:
            await self._hand_over(older, container)
            await self._remove_sandbox(older.sandbox.id)
        return container

    async def _hand_over(self, older: Attempt, container: Container) -> None:
        if older.container is None:
            return
        _, before = await self.status(replace(container, attempts=(older,)))
        _, now = await self.status(container)
        source, target = before.get("spec", {}).get("upper", ""), now.get("spec", {}).get("upper", "")
        if source and target and Path(source).is_dir():
            os.rename(source, target)  # noqa: PTH104 (over an empty directory, which is what makes it one step)

    # --- stop, remove

    async def signal(self, container: Container, number: int) -> None:
        """Signal the container's first process. Raises DaemonError when it does not run."""
        _, info = await self.status(container)
        pid = int(info.get("pid") or 0)
        if not pid:
            raise DaemonError(f"container {container.spec.id} is not running")
        fd = os.pidfd_open(pid)
        try:
            if (await self.status(container))[1].get("pid") == pid:  # so the descriptor is the process we mean
                signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(fd)

    async def stop(self, container: Container, timeout_s: int) -> None:
        """Stop signal, grace, SIGKILL; then let go of its network."""
        from protos.cri import runtime_pb2 as pb

        if container.cri_id:
            await self.cri.StopContainer(pb.StopContainerRequest(container_id=container.cri_id, timeout=timeout_s))
        await self.release(container)

    async def release(self, container: Container) -> None:
        """Give back address and ports of a container that runs no more, and remove it if it asked for that.

        Left to whoever is still attached, if anyone is: they may have output to read.
        """
        from protos.cri import runtime_pb2 as pb

        with self.attached(container, wait=False) as alone:
            if not alone:
                return
            await self.cri.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=container.sandbox_id))
        if container.spec.auto_remove:
            await self.remove(container, with_volumes=True)

    async def remove(self, container: Container, with_volumes: bool) -> None:
        """All of it: attempts, log, and with ``with_volumes`` its nameless volumes."""
        for attempt in container.attempts:
            await self._remove_sandbox(attempt.sandbox.id)
        shutil.rmtree(self.folder(container.spec.id), ignore_errors=True)
        if with_volumes:
            for mount in container.spec.mounts:
                if mount.kind == "volume" and len(mount.name) == 64:
                    shutil.rmtree(self.volumes / mount.name, ignore_errors=True)

    async def _remove_sandbox(self, sandbox_id: str) -> None:
        from protos.cri import runtime_pb2 as pb

        await self.cri.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=sandbox_id))
        await self.cri.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id))

    async def tidy(self) -> list[Container]:
        """What is there, after letting go of what ended by itself since the last command."""
        found = await self.containers()
        ended = [container for container in found if container.is_exited and container.is_ready]
        for container in ended:
            await self.release(container)
        return await self.containers() if ended else found

    @contextlib.contextmanager
    def attached(self, container: Container, wait: bool = True) -> Iterator[bool]:
        """Hold the container's lock, as one of its readers or (not ``wait``) alone: False when there are readers."""
        folder = self.folder(container.spec.id)
        if not folder.is_dir():
            yield True
            return
        fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
        except BlockingIOError:
            yield False
        finally:
            os.close(fd)


def _container(attempts: list[Attempt]) -> Container:
    return Container(specs.decode(attempts[0].sandbox.annotations[SPEC_ANNOTATION]), tuple(attempts))


def choose(containers: list[Container], name: str) -> Container:
    """Pure: the container that ``name`` means: a name, an id, or the beginning of one. Raises DaemonError."""
    plain = name.removeprefix("/")
    exact = [c for c in containers if plain in (c.spec.name, c.spec.id)]
    found = exact or [c for c in containers if plain and c.spec.id.startswith(plain)]
    if not found:
        raise DaemonError(f"No such container: {name}")
    if len(found) > 1:
        raise DaemonError(f"Multiple IDs found with provided prefix: {name}")
    return found[0]


def code_of_failed_start(text: str) -> int:
    """Pure: docker's exit code for a program that could not be started: not found, cannot be invoked, else ours."""
    if any(words in text for words in ("No such file or directory", "not found", "no such program")):
        return 127
    if any(word in text for word in ("Permission denied", "Exec format error", "Is a directory")):
        return 126
    return 125


def tmpfs_data(options: str) -> tuple[list[str], str]:
    """Pure: (words for us, options for mount(2)) of ``--tmpfs``."""
    words = [word for word in options.split(",") if word]
    data = [
        word for word in words if word.partition("=")[0] in ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks")
    ]
    if not any(word.startswith("mode=") for word in data):
        data.append("mode=1777")
    return [word for word in words if word not in data], ",".join(data)
