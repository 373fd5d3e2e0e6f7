"""Making, starting, stopping and removing containers."""

import asyncio
import json
import logging
import os
import secrets
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from cri_runtime.cgroups.base import CgroupError
from cri_runtime.pod import machine, signals, spec
from cri_runtime.pod.client import wait_readable
from cri_runtime.pod.errors import NameTaken, NotFound, ResourcesRefused, ShimFailed, StartFailed, SupervisorGone
from cri_runtime.pod.events import Kind
from cri_runtime.pod.records import ContainerRecord
from cri_runtime.pod.users import User, read_from_layers, resolve
from cri_runtime.pod.validate import validate_container
from cri_runtime.pod.world import DEFAULT_CGROUP_PARENT, Container, ImageLike, Sandbox, World, container_name
from protos.cri import runtime_pb2 as cri

log = logging.getLogger(__name__)

MACHINE = os.uname().machine


class Containers:
    """Operations on containers. Each either completes or leaves nothing behind, also when it is cancelled."""

    def __init__(self, world: World) -> None:
        self._world = world

    # --- create

    async def create(self, sandbox_name: str, config: cri.ContainerConfig) -> str:
        """Create a container; returns its id. Raises NotFound, WrongState, InvalidConfig, NameTaken, ImageNotFound,
        ResourcesRefused."""
        sandbox = self._world.sandbox(sandbox_name)
        machine.require_ready(sandbox.record)
        validate_container(config)
        image = self._world.images.get(config.image.image)
        container_id = secrets.token_hex(32)
        name = ("container", sandbox.record.id, config.metadata.name, config.metadata.attempt)
        if name in self._world.names:
            raise NameTaken(
                f'container "{config.metadata.name}" attempt {config.metadata.attempt} exists already in pod sandbox '
                f"{sandbox.record.id[:13]}: remove it or raise the attempt"
            )
        self._world.names.add(name)
        try:
            record = await self._make(sandbox, container_id, config, image)
            machine.require_ready(sandbox.record)  # it may have been stopped, even removed, meanwhile
        except BaseException:
            await asyncio.shield(self._unmake(container_id, image.id))
            self._world.names.discard(name)
            raise
        self._world.containers[container_id] = Container(record)
        self._world.events.publish(container_id, sandbox.record.id, Kind.CREATED)
        return container_id

    async def _make(
        self, sandbox: Sandbox, container_id: str, config: cri.ContainerConfig, image: ImageLike
    ) -> ContainerRecord:
        self._world.images.pin(image.id, container_id)
        lower = await self._world.images.lower_dirs(image.id)
        user = _resolve_user(config, image, lower)
        pod = sandbox.record.message
        parent = pod.linux.cgroup_parent or DEFAULT_CGROUP_PARENT
        record = _new_record(container_id, sandbox, config, image, user, f"/{parent.strip('/')}/{container_id}")
        home = self._world.container_home(container_id)
        home.mkdir(parents=True, mode=0o700)
        for name in ("upper", "work", "rootfs"):
            (home / name).mkdir()
        (home / "upper").chmod(lower[0].stat().st_mode & 0o7777)  # it is what the container sees of its own "/"
        places = spec.Places(
            container=home,
            sandbox=self._world.sandbox_state(sandbox.record.id),
            lower=lower,
            join=self._world.cgroups.join(record.cgroup),
            cgroup_mounts=self._world.cgroups.mounts(),
            log=record.log_path,
        )
        document = spec.build(
            container_id, config, pod, image.config, user, places, MACHINE, self._world.available_capabilities
        )
        await self._world.records.save(record)  # before the cgroup: whatever exists is found by its record
        limits = replace(spec.limits_of(config.linux.resources), devices=spec.device_rules(config, document["devices"]))
        self._world.ancestors.create(record.cgroup, limits)
        document["cgroup"]["tasks"] = self._world.cgroups.join(record.cgroup).tasks
        _write_spec(home, document)
        return record

    async def _unmake(self, container_id: str, image_id: str) -> None:
        self._world.images.unpin(image_id, container_id)
        for record in self._world.records.load_container(container_id):
            self._world.cgroups.remove(record.cgroup)
            await self._world.records.delete(record)
        shutil.rmtree(self._world.container_home(container_id), ignore_errors=True)
        self._world.ancestors.sweep()

    # --- start

    async def start(self, name: str) -> None:
        """Start a CREATED container. Raises NotFound, WrongState, StartFailed (it is EXITED then, with code 128)."""
        container = self._world.container(name)
        async with container.lock:
            await asyncio.shield(self._start(container))

    async def _start(self, container: Container) -> None:
        record = container.record
        machine.require_created(record)
        sandbox = self._world.sandbox(record.sandbox_id)
        machine.require_ready(sandbox.record)
        if record.log_path:
            Path(record.log_path).parent.mkdir(parents=True, exist_ok=True)
        home = str(self._world.container_home(record.id))
        try:
            names, fds = list(container.early), list(container.early.values())
            report, _ = await sandbox.require_supervisor().request(
                "start", fds, container=record.id, directory=home, attach=names
            )
        except SupervisorGone as err:
            raise StartFailed(f'cannot start container "{record.id[:13]}": {err}') from err
        except ShimFailed as err:
            raise self._start_failed(container, err) from err
        finally:
            container.close_early()
        container.set(machine.observed(container.record, report))
        for warning in report["warnings"]:
            log.warning(warning, extra={"container": record.id[:13]})
        self._world.events.publish(record.id, record.sandbox_id, Kind.STARTED)

    def _start_failed(self, container: Container, err: ShimFailed) -> StartFailed:
        now = time.time_ns()
        error = {"step": err.step, "errno": err.errno, "path": err.path, "text": err.text}
        report = {"state": "exited", "exit_code": 128, "started_at": 0, "finished_at": now, "error": error}
        if container.record.status.state == "created":  # it failed before the supervisor had anything to write down
            _write_status(self._world.container_home(container.record.id), report)
            container.set(machine.observed(container.record, report))
        name = container.record.message.metadata.name
        return StartFailed(f'cannot start container "{name}": {machine.start_error_text(error)}')

    # --- stop

    async def stop(self, name: str, timeout_s: float) -> None:
        """Stop signal, ``timeout_s`` of grace, SIGKILL; 0 kills at once. EXITED on return. Unknown ids are fine."""
        try:
            container = self._world.container(name)
        except NotFound:
            return
        if container.record.status.state == "created":
            async with container.lock:  # a start that is under way ends first
                pass
        if container.record.status.state == "running":
            await self._stop(container, timeout_s)

    async def _stop(self, container: Container, timeout_s: float) -> None:
        supervisor = self._world.sandbox(container.record.sandbox_id).supervisor
        if supervisor is None:
            await container.exited.wait()  # the sandbox is being ended
            return
        try:
            if timeout_s > 0:
                await supervisor.request("signal", target=container.record.id, signal=container.record.stop_signal)
                try:
                    async with asyncio.timeout(timeout_s):
                        await container.exited.wait()
                except TimeoutError:
                    log.info("container outlived its grace period", extra={"container": container.record.id[:13]})
            if not container.exited.is_set():
                await supervisor.request("kill", container=container.record.id)
        except SupervisorGone:
            pass  # then everything of the pod is being killed
        await container.exited.wait()

    # --- remove

    async def remove(self, name: str) -> None:
        """Stop if needed, and remove all but the log. Unknown ids are fine."""
        try:
            container = self._world.container(name)
        except NotFound:
            return
        await self.stop(container.record.id, 0)
        async with container.lock:
            if container.record.id in self._world.containers:
                await asyncio.shield(self._remove(container))

    async def _remove(self, container: Container) -> None:
        record = container.record
        container.close_early()
        sandbox = self._world.sandboxes.get(record.sandbox_id)
        if sandbox and sandbox.supervisor:
            try:
                await sandbox.supervisor.request("forget", container=record.id)
            except ShimFailed:
                pass
        await self.remove_cgroup(record.cgroup)
        await self._world.records.run(shutil.rmtree, self._world.container_home(record.id), True)
        await self._world.records.delete(record)
        self._world.images.unpin(record.image_id, record.id)
        del self._world.containers[record.id]
        self._world.names.discard(container_name(record))
        self._world.events.publish(record.id, record.sandbox_id, Kind.DELETED)

    async def remove_cgroup(self, path: str) -> None:
        """Kill what is left in a container's cgroup, wait for its end, remove it."""
        while left := self._world.cgroups.pids(path):
            self._world.cgroups.kill(path)
            for pid in left:
                await _ended(pid)
        self._world.cgroups.remove(path)

    # --- what the supervisor tells

    def on_event(self, sandbox: Sandbox, event: dict[str, Any]) -> None:
        """Handle an event of the sandbox's supervisor."""
        if event["event"] == "exec_exited":
            future = sandbox.execs.get(event["exec"])
            if future is not None and not future.done():
                future.set_result(event["exit_code"])
            return
        container = self._world.containers.get(event["container"])
        if container is not None:
            self._apply(container, event["status"])

    def _apply(self, container: Container, report: dict[str, Any]) -> None:
        before = container.record.status.state
        container.set(machine.observed(container.record, report))
        if container.record.status.state == "exited" != before:
            self._world.events.publish(container.record.id, container.record.sandbox_id, Kind.STOPPED)

    async def lose(self, sandbox_id: str) -> None:
        """The sandbox has no supervisor to ask any more: what it wrote down last, or else: killed, code unknown."""
        for container in self._world.containers_of(sandbox_id):
            record = container.record
            if record.status.state == "exited":
                continue
            report = read_status(self._world.container_home(record.id))
            if report and report["state"] == "exited":
                self._apply(container, report)
            elif self._world.sandboxes[sandbox_id].supervisor is None:
                await self._lose(container, report)

    async def _lose(self, container: Container, report: dict[str, Any] | None) -> None:
        record = machine.observed(container.record, report) if report else container.record
        await self.remove_cgroup(record.cgroup)
        if record.status.state != "running":
            return
        lost = machine.lost(record, time.time_ns())
        _write_status(self._world.container_home(record.id), machine.report_of(lost))
        container.set(lost)
        self._world.events.publish(record.id, record.sandbox_id, Kind.STOPPED)

    # --- change

    async def update_resources(self, name: str, change: cri.LinuxContainerResources) -> None:
        """Change limits, all or nothing; zero fields stay. Raises NotFound, WrongState, ResourcesRefused."""
        container = self._world.container(name)
        async with container.lock:
            record = container.record
            if record.status.state == "exited":
                machine.require_running(record)
            old = cri.LinuxContainerResources.FromString(record.resources)
            merged = spec.merged_resources(old, change)
            try:
                self._world.cgroups.apply(record.cgroup, spec.limits_of(change))
            except CgroupError as err:
                raise ResourcesRefused(f'container "{record.id[:13]}": {err}') from err
            if change.oom_score_adj:
                self._set_oom_score(record, change.oom_score_adj)
            container.record = replace(container.record, resources=merged.SerializeToString())
            await self._world.records.save(container.record)

    def _set_oom_score(self, record: ContainerRecord, adjustment: int) -> None:
        """Of the first process, now or when it starts. The kernel may refuse to lower it: then it stays."""
        if record.status.state == "created":
            home = self._world.container_home(record.id)
            _write_spec(home, {**json.loads((home / "spec.json").read_text()), "oom_score_adj": adjustment})
            return
        try:
            Path(f"/proc/{record.status.pid}/oom_score_adj").write_text(str(adjustment))
        except OSError as err:
            log.warning("oom_score_adj stays as it is", extra={"container": record.id[:13], "cause": str(err)})

    async def reopen_log(self, name: str) -> None:
        """Go on in a new log file. Raises NotFound, WrongState, ShimFailed."""
        record = self._world.container(name).record
        machine.require_running(record)
        sandbox = self._world.sandbox(record.sandbox_id)
        await sandbox.require_supervisor().request("reopen", container=record.id)


async def _ended(pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await wait_readable(pidfd)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def _resolve_user(config: cri.ContainerConfig, image: ImageLike, lower: Any) -> User:
    wanted = spec.wanted_user(config, image.config)
    return resolve(wanted, read_from_layers(lower, "etc/passwd"), read_from_layers(lower, "etc/group"))


def _new_record(
    container_id: str, sandbox: Sandbox, config: cri.ContainerConfig, image: ImageLike, user: User, cgroup: str
) -> ContainerRecord:
    directory = sandbox.record.message.log_directory
    return ContainerRecord(
        id=container_id,
        sandbox_id=sandbox.record.id,
        config=config.SerializeToString(),
        image_id=image.id,
        image_ref=image.repo_digests[0] if image.repo_digests else image.id,
        created_at=time.time_ns(),
        cgroup=cgroup,
        log_path=os.path.join(directory, config.log_path) if directory and config.log_path else "",  # noqa: PTH118
        uid=user.uid,
        gid=user.gid,
        groups=user.groups,
        stop_signal=signals.effective(config.stop_signal, image.config.stop_signal),
        resources=config.linux.resources.SerializeToString(),
        tty=config.tty,
        stdin=config.stdin,
    )


def _write_spec(home: Path, document: dict[str, Any]) -> None:
    """The spec appears whole or not at all; a container without one is half-made."""
    temporary = home / "spec.new"
    temporary.write_text(json.dumps(document))
    temporary.rename(home / "spec.json")


def _write_status(home: Path, report: dict[str, Any]) -> None:
    temporary = home / "status.json.new"
    temporary.write_text(json.dumps(report))
    temporary.rename(home / "status.json")


def read_status(home: Path) -> dict[str, Any] | None:
    """What the supervisor wrote down last; None when there is nothing, or nothing whole."""
    try:
        report: dict[str, Any] = json.loads((home / "status.json").read_text())
    except (OSError, ValueError):
        return None
    return report if report.get("state") in ("running", "exited") else None
