"""Making, stopping and removing pod sandboxes."""

import asyncio
import functools
import logging
import secrets
import shutil
import socket
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from cri_runtime.linux.constants import MNT_DETACH
from cri_runtime.linux.mount import umount2
from cri_runtime.network.types import PodIdentity
from cri_runtime.pod import files
from cri_runtime.pod.client import Supervisor
from cri_runtime.pod.containers import Containers
from cri_runtime.pod.errors import NameTaken, NotFound, ShimFailed
from cri_runtime.pod.events import Kind
from cri_runtime.pod.records import SandboxRecord
from cri_runtime.pod.validate import validate_sandbox
from cri_runtime.pod.world import Sandbox, World, sandbox_name
from cri_runtime.shim.supervisor import NETNS, SHM
from protos.cri import runtime_pb2 as cri

log = logging.getLogger(__name__)

HANDLERS: Collection[str] = ("", "knarr")
SHM_BYTES = 64 << 20
KILLED = 137
"""The exit code of what died with its pod."""


class Sandboxes:
    """Operations on sandboxes. Each either completes or leaves nothing behind, also when it is cancelled."""

    def __init__(self, world: World, containers: Containers) -> None:
        self._world = world
        self._containers = containers

    async def run(self, config: cri.PodSandboxConfig, handler: str) -> str:
        """Create and start a sandbox; returns its id. Raises InvalidConfig, NameTaken, NetworkError, ShimFailed."""
        validate_sandbox(config, handler, HANDLERS)
        record = _new_record(config, handler)
        name = sandbox_name(record)
        if name in self._world.names:
            meta = config.metadata
            raise NameTaken(
                f"pod sandbox {meta.namespace}/{meta.name} (uid {meta.uid}, attempt {meta.attempt}) exists already: "
                f"remove it or raise the attempt"
            )
        self._world.names.add(name)
        sandbox = Sandbox(record)
        try:
            await self._make(sandbox)
        except BaseException:
            await asyncio.shield(self._unmake(sandbox))
            self._world.names.discard(name)
            raise
        self._world.sandboxes[record.id] = sandbox
        for kind in (Kind.CREATED, Kind.STARTED):
            self._world.events.publish(record.id, record.id, kind)
        log.info("sandbox started", extra={"sandbox": record.id[:13], "pod": _full_name(config)})
        return record.id

    async def _make(self, sandbox: Sandbox) -> None:
        record = sandbox.record
        config = record.message
        state = self._world.sandbox_state(record.id)
        (state / "empty").mkdir(parents=True, mode=0o700)
        hostname = _hostname(record, config)
        _write_files(state, record, config, hostname)
        sandbox.supervisor = await self.start_supervisor(sandbox, hostname)
        if not record.host_network:
            identity = PodIdentity(config.metadata.namespace, config.metadata.name, config.metadata.uid)
            network = await self._world.network.attach(record.id, state / NETNS, identity, config.port_mappings)
            record = replace(record, ips=tuple(network.ips))
            (state / "hosts").write_text(files.hosts(record.ips, hostname))
        config.hostname = hostname
        sandbox.record = replace(record, config=config.SerializeToString())
        await self._world.records.save(sandbox.record)

    async def start_supervisor(self, sandbox: Sandbox, hostname: str) -> Supervisor:
        """Fork the pod's supervisor; its namespaces exist on return. Raises ShimFailed."""
        record = sandbox.record
        state = self._world.sandbox_state(record.id)
        pod = _shim_pod(record, hostname, state)
        return await Supervisor.start(self._world.zygote, pod, state, *self.callbacks(sandbox))

    def callbacks(self, sandbox: Sandbox) -> tuple[Any, Any]:
        """What a connection to the sandbox's supervisor calls: on an event, and at its end."""
        return (
            functools.partial(self._containers.on_event, sandbox),
            functools.partial(self._on_supervisor_end, sandbox),
        )

    def _on_supervisor_end(self, sandbox: Sandbox) -> None:
        """The supervisor died, or quit because we asked (then it is no longer the sandbox's)."""
        if sandbox.supervisor is None or sandbox.record.id not in self._world.sandboxes:
            return
        log.warning("supervisor died; its pod goes with it", extra={"sandbox": sandbox.record.id[:13]})
        sandbox.supervisor = None
        sandbox.record = replace(sandbox.record, ready=False)
        for waiting in sandbox.execs.values():
            if not waiting.done():
                waiting.set_result(KILLED)
        self._world.spawn(self._bury(sandbox))

    async def _bury(self, sandbox: Sandbox) -> None:
        async with sandbox.lock:
            if not sandbox.ended:
                await self.end(sandbox)

    async def stop(self, name: str) -> None:
        """Kill the containers, take down network and namespaces; NOTREADY afterwards. Unknown ids are fine."""
        try:
            sandbox = self._world.sandbox(name)
        except NotFound:
            return
        async with sandbox.lock:
            if not sandbox.ended:
                await asyncio.shield(self.end(sandbox))

    async def end(self, sandbox: Sandbox) -> None:
        """End a sandbox whose lock is held, whatever is left of it. Idempotent."""
        record = sandbox.record = replace(sandbox.record, ready=False)
        if sandbox.supervisor is not None:
            await self._end_containers(sandbox)
        await self._containers.lose(record.id)
        await self._take_down(sandbox)
        await self._world.records.save(sandbox.record)
        sandbox.ended = True
        self._world.events.publish(record.id, record.id, Kind.STOPPED)
        log.info("sandbox stopped", extra={"sandbox": record.id[:13]})

    async def _end_containers(self, sandbox: Sandbox) -> None:
        try:
            await sandbox.require_supervisor().request("stop")
        except ShimFailed as err:
            log.warning("cannot stop by supervisor", extra={"sandbox": sandbox.record.id[:13], "cause": str(err)})

    async def _take_down(self, sandbox: Sandbox) -> None:
        """Network first, while its namespace exists; then the supervisor, whose end unmakes the namespaces."""
        state = self._world.sandbox_state(sandbox.record.id)
        if not sandbox.record.host_network:
            netns = state / NETNS
            await self._world.network.detach(sandbox.record.id, netns if netns.exists() else None)
        supervisor, sandbox.supervisor = sandbox.supervisor, None
        if supervisor is not None:
            await supervisor.quit()
        unmount(state)

    async def _unmake(self, sandbox: Sandbox) -> None:
        """Undo a sandbox that was never announced."""
        await self._take_down(sandbox)
        await self._world.records.delete(sandbox.record)
        await self.discard_leftover(self._world.sandbox_state(sandbox.record.id))  # when cancelled during the fork

    async def remove(self, name: str) -> None:
        """Stop if needed, remove its containers, then the sandbox. Unknown ids are fine."""
        try:
            sandbox = self._world.sandbox(name)
        except NotFound:
            return
        await self.stop(sandbox.record.id)
        async with sandbox.lock:
            if sandbox.record.id in self._world.sandboxes:
                await asyncio.shield(self._remove(sandbox))

    async def _remove(self, sandbox: Sandbox) -> None:
        record = sandbox.record
        for container in self._world.containers_of(record.id):
            await self._containers.remove(container.record.id)
        self._world.ancestors.sweep()
        shutil.rmtree(self._world.sandbox_state(record.id), ignore_errors=True)
        await self._world.records.delete(record)
        del self._world.sandboxes[record.id]
        self._world.names.discard(sandbox_name(record))
        self._world.events.publish(record.id, record.id, Kind.DELETED)

    # --- after a restart

    async def discard_leftover(self, state: Path) -> None:
        """Undo a sandbox of which only the state directory is left: it was never announced, or is removed."""
        found = await Supervisor.find(state, lambda event: None, lambda: None)
        if found is not None:
            await found[0].request("stop")
            await found[0].quit()
        unmount(state)
        shutil.rmtree(state, ignore_errors=True)


def unmount(state: Path) -> None:
    """Unmount what a supervisor mounted in a sandbox's state directory. Idempotent."""
    for name in (NETNS, SHM):
        try:
            umount2(str(state / name), MNT_DETACH)
        except OSError:
            pass  # EINVAL, ENOENT: not mounted


def _new_record(config: cri.PodSandboxConfig, handler: str) -> SandboxRecord:
    options = config.linux.security_context.namespace_options
    return SandboxRecord(
        id=secrets.token_hex(32),
        config=config.SerializeToString(),
        runtime_handler=handler,
        created_at=time.time_ns(),
        ready=True,
        host_network=options.network == cri.NODE,
    )


def _hostname(record: SandboxRecord, config: cri.PodSandboxConfig) -> str:
    return socket.gethostname() if record.host_network else config.hostname or record.id[:12]


def _shim_pod(record: SandboxRecord, hostname: str, state: Path) -> dict[str, Any]:
    config = record.message
    options = config.linux.security_context.namespace_options
    return {
        "id": record.id,
        "state": str(state),
        "network": "host" if record.host_network else "pod",
        "ipc": "host" if options.ipc == cri.NODE else "pod",
        "pid": "pod" if options.pid == cri.POD else "container",
        "hostname": hostname,
        "sysctls": dict(config.linux.sysctls),
        "shm_bytes": SHM_BYTES,
    }


def _write_files(state: Path, record: SandboxRecord, config: cri.PodSandboxConfig, hostname: str) -> None:
    (state / "hostname").write_text(f"{hostname}\n")
    host_hosts, host_resolv = Path("/etc/hosts"), Path("/etc/resolv.conf")
    copy = record.host_network and host_hosts.exists()
    (state / "hosts").write_text(host_hosts.read_text() if copy else files.hosts((), hostname))
    resolv = files.resolv_conf(config.dns_config)
    if not config.HasField("dns_config") and host_resolv.exists():
        resolv = host_resolv.read_text()
    (state / "resolv.conf").write_text(resolv)


def _full_name(config: cri.PodSandboxConfig) -> str:
    return f"{config.metadata.namespace}/{config.metadata.name}"
