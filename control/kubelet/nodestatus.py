"""The Node object of this machine, and the loop that keeps it and its Lease fresh. ``node_status`` is pure.

Two heartbeats, as in Kubernetes: a small Lease in namespace kube-node-lease every 10 s, and the whole status when it
changed or every 5 minutes.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from control.api import meta, quantity, times
from control.client import Client, errors
from control.kubelet.machine import Machine, Pressure, read_pressure
from control.kubelet.runtime import Runtime, RuntimeFailed
from protos.cri import runtime_pb2 as cri
from protos.k8s import core_v1_pb2 as core
from protos.k8s.coordination_v1_pb2 import Lease

log = logging.getLogger(__name__)

LEASE_NAMESPACE = "kube-node-lease"
LEASE_S = 40
HEARTBEAT_S = 10.0
STATUS_EVERY_S = 300.0
RETRY_S = 1.0
RUNTIME_GRACE_S = 30.0
"""How long a runtime may be silent before its node is not ready: pods go on, and services must, while it restarts."""
PODS_MAX = 110
MEMORY_LOW_BYTES = 100 << 20
STORAGE_LOW_SHARE = 0.05
PIDS_LOW = 1000


@dataclass(frozen=True)
class Identity:
    """Who this node is."""

    name: str
    ip: str
    port: int = 10250
    version: str = "v1.36.0-knarr"
    labels: tuple[tuple[str, str], ...] = ()
    pods_max: int = PODS_MAX


@dataclass(frozen=True)
class RuntimeHealth:
    """What the runtime says of itself; ``problem`` is why the node is not ready, or ""."""

    version: str = ""
    problem: str = ""


def node_labels(identity: Identity, machine: Machine) -> dict[str, str]:
    """The labels that every node has, and those it was given."""
    return {
        "kubernetes.io/hostname": identity.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": machine.architecture,
        **dict(identity.labels),
    }


def node_status(
    old: core.NodeStatus, identity: Identity, machine: Machine, pressure: Pressure, runtime: RuntimeHealth, now: float
) -> core.NodeStatus:
    """The status to report. ``old`` gives the times of conditions that have not changed."""
    status = core.NodeStatus()
    _resources(status, identity, machine)
    status.addresses.add(type="InternalIP", address=identity.ip)
    status.addresses.add(type="Hostname", address=identity.name)
    status.daemonEndpoints.kubeletEndpoint.Port = identity.port
    info = status.nodeInfo
    info.machineID, info.systemUUID, info.bootID = machine.machine_id, machine.machine_id, machine.boot_id
    info.kernelVersion, info.osImage, info.architecture = machine.kernel, machine.os_image, machine.architecture
    info.containerRuntimeVersion, info.kubeletVersion = runtime.version, identity.version
    info.kubeProxyVersion, info.operatingSystem = "", "linux"
    for condition in _conditions(pressure, runtime):
        _stamp(condition, old, now)
        status.conditions.append(condition)
    return status


def _resources(status: core.NodeStatus, identity: Identity, machine: Machine) -> None:
    amounts = {
        "cpu": str(machine.cpus),
        "memory": f"{machine.memory_bytes // 1024}Ki",
        "ephemeral-storage": f"{machine.storage_bytes // 1024}Ki",
        "pods": str(identity.pods_max),
    }
    for name, text in amounts.items():
        status.capacity[name].string = quantity.canonical(text)
        status.allocatable[name].string = status.capacity[name].string


def _conditions(pressure: Pressure, runtime: RuntimeHealth) -> list[core.NodeCondition]:
    low_memory = pressure.memory_available_bytes < MEMORY_LOW_BYTES
    low_disk = pressure.storage_available_share < STORAGE_LOW_SHARE
    low_pids = pressure.pids_free < PIDS_LOW
    return [
        _condition(
            "MemoryPressure", low_memory, "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory", "memory"
        ),
        _condition("DiskPressure", low_disk, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure", "disk space"),
        _condition("PIDPressure", low_pids, "KubeletHasInsufficientPID", "KubeletHasSufficientPID", "process ids"),
        core.NodeCondition(
            type="Ready",
            status="False" if runtime.problem else "True",
            reason="KubeletNotReady" if runtime.problem else "KubeletReady",
            message=runtime.problem or "kubelet is posting ready status",
        ),
    ]


def _condition(type_: str, low: bool, bad: str, good: str, what: str) -> core.NodeCondition:
    message = f"kubelet has {'too little' if low else 'enough'} {what}"
    return core.NodeCondition(
        type=type_, status="True" if low else "False", reason=bad if low else good, message=message
    )


def _stamp(condition: core.NodeCondition, old: core.NodeStatus, now: float) -> None:
    before = meta.find_condition(old.conditions, condition.type)
    condition.lastHeartbeatTime.seconds = int(now)
    condition.lastTransitionTime.seconds = int(now)
    if before is not None and before.status == condition.status:
        condition.lastTransitionTime.CopyFrom(before.lastTransitionTime)


def same_but_heartbeat(left: core.NodeStatus, right: core.NodeStatus) -> bool:
    """True if the statuses differ in nothing but the times of the heartbeat."""
    one, other = core.NodeStatus(), core.NodeStatus()
    one.CopyFrom(left)
    other.CopyFrom(right)
    for status in (one, other):
        for condition in status.conditions:
            condition.ClearField("lastHeartbeatTime")
    return one == other


def health_of(version: cri.VersionResponse, status: cri.StatusResponse) -> RuntimeHealth:
    """The runtime's health from its own words."""
    false = [c for c in status.status.conditions if not c.status and c.type in ("RuntimeReady", "NetworkReady")]
    problem = "; ".join(f"{c.type}=false reason:{c.reason} message:{c.message}" for c in false)
    name = f"{version.runtime_name}://{version.runtime_version.removeprefix('v')}"
    return RuntimeHealth(name, problem)


class NodeReporter:
    """Registers the node and keeps its status and lease fresh."""

    def __init__(
        self,
        client: Client,
        runtime: Runtime,
        identity: Identity,
        machine: Machine,
        storage: Path,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.client, self.runtime, self.identity, self.machine = client, runtime, identity, machine
        self.storage, self.now = storage, now
        self.node: core.Node | None = None
        self._reported_at = 0.0
        self._version = ""
        self._heard_at = -RUNTIME_GRACE_S
        self._changed = asyncio.Event()

    def poke(self) -> None:
        """The runtime came or went: look at once."""
        self._changed.set()

    async def run(self) -> None:
        """Report until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._report_status(), name="node-status")
            tasks.create_task(self._renew_lease(), name="node-lease")

    async def _report_status(self) -> None:
        while True:
            wait_s = HEARTBEAT_S
            try:
                await self._report()
            except errors.ApiError as err:
                log.info("node status not reported", extra={"node": self.identity.name, "cause": err.message})
                self.node, wait_s = None, RETRY_S
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()

    async def _report(self) -> None:
        if self.node is None:
            self.node = await self._register()
        now, health = self.now(), await self._health()
        pressure = read_pressure(self.storage)
        status = node_status(self.node.status, self.identity, self.machine, pressure, health, now)
        due = now - self._reported_at >= STATUS_EVERY_S
        if due or not same_but_heartbeat(status, self.node.status):
            changed: core.Node = meta.copy_of(self.node)
            changed.status.CopyFrom(status)
            self.node = await self._write(changed, status)
            self._reported_at = now

    async def _write(self, changed: core.Node, status: core.NodeStatus) -> core.Node:
        """Write the status; the node's taints may have changed meanwhile, which is no reason to lose a heartbeat."""
        try:
            return await self.client.update_status(changed)
        except errors.Conflict:
            newest = await self.client.get(core.Node, self.identity.name)
            newest.status.CopyFrom(status)
            return await self.client.update_status(newest)

    async def _register(self) -> core.Node:
        labels = node_labels(self.identity, self.machine)
        node = core.Node()
        node.metadata.name = self.identity.name
        node.metadata.labels.update(labels)
        try:
            made = await self.client.create(node)
            log.info("registered node", extra={"node": self.identity.name})
            return made
        except errors.AlreadyExists:
            found = await self.client.get(core.Node, self.identity.name)
        if any(found.metadata.labels.get(key) != value for key, value in labels.items()):
            found.metadata.labels.update(labels)
            found = await self.client.update(found)
        return found

    async def _health(self) -> RuntimeHealth:
        try:
            version, status = await self.runtime.version(), await self.runtime.status()
        except RuntimeFailed as err:
            if self.now() - self._heard_at < RUNTIME_GRACE_S:
                return RuntimeHealth(self._version)
            return RuntimeHealth(self._version, f"container runtime is down: {err}")
        health = health_of(version, status)
        self._version, self._heard_at = health.version, self.now()
        return health

    async def _renew_lease(self) -> None:
        while True:
            wait_s = HEARTBEAT_S
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._renew()
            except (errors.ApiError, TimeoutError) as err:
                log.info("node lease not renewed", extra={"node": self.identity.name, "cause": str(err)})
                wait_s = RETRY_S
            await asyncio.sleep(wait_s)

    async def _renew(self) -> None:
        name = self.identity.name
        try:
            lease = await self.client.get(Lease, name, namespace=LEASE_NAMESPACE)
        except errors.NotFound:
            lease = Lease()
            lease.metadata.name, lease.metadata.namespace = name, LEASE_NAMESPACE
        lease.spec.holderIdentity, lease.spec.leaseDurationSeconds = name, LEASE_S
        lease.spec.renewTime.CopyFrom(times.now_micro())
        if lease.metadata.resourceVersion:
            await self.client.update(lease)
        else:
            await self.client.create(lease)
