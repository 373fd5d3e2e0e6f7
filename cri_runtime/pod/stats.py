"""How much containers and pods use, as CRI messages."""

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

from cri_runtime.cgroups import Usage
from cri_runtime.pod.world import Container, Sandbox, World
from protos.cri import runtime_pb2 as cri


class Stats:
    """Reads cgroups, writable layers and network devices."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def container(self, container: Container) -> cri.ContainerStats:
        """The container's numbers now."""
        layer = await asyncio.to_thread(disk_usage, self._world.container_home(container.record.id) / "upper")
        return self._container(container, layer)

    def _container(self, container: Container, layer: tuple[int, int]) -> cri.ContainerStats:
        record, config = container.record, container.record.message
        stats = cri.ContainerStats()
        stats.attributes.id = record.id
        stats.attributes.metadata.CopyFrom(config.metadata)
        stats.attributes.labels.update(config.labels)
        stats.attributes.annotations.update(config.annotations)
        usage = self._world.cgroups.usage(record.cgroup) or Usage()
        container.cpu_sample = fill_usage(stats, usage, container.cpu_sample)
        stats.writable_layer.timestamp = time.time_ns()
        stats.writable_layer.fs_id.mountpoint = str(self._world.root)
        stats.writable_layer.used_bytes.value, stats.writable_layer.inodes_used.value = layer
        return stats

    async def sandbox(self, sandbox: Sandbox) -> cri.PodSandboxStats:
        """The pod's numbers now: the sum of its running containers', and its network's."""
        record, config = sandbox.record, sandbox.record.message
        stats = cri.PodSandboxStats()
        stats.attributes.id = record.id
        stats.attributes.metadata.CopyFrom(config.metadata)
        stats.attributes.labels.update(config.labels)
        stats.attributes.annotations.update(config.annotations)
        running = [c for c in self._world.containers_of(record.id) if c.record.status.state == "running"]
        stats.linux.containers.extend([await self.container(container) for container in running])
        total = sum((self._world.cgroups.usage(c.record.cgroup) or Usage() for c in running), Usage())
        sandbox.cpu_sample = fill_usage(stats.linux, total, sandbox.cpu_sample)
        stats.linux.process.timestamp = time.time_ns()
        stats.linux.process.process_count.value = total.pids
        if sandbox.supervisor and not record.host_network:
            _fill_network(stats.linux.network, _devices(sandbox.supervisor.pid))
        return stats


def fill_usage(
    stats: cri.ContainerStats | cri.LinuxPodSandboxStats, usage: Usage, before: tuple[int, int]
) -> tuple[int, int]:
    """Pure but for the clock: put ``usage`` into ``stats``; returns the sample for the next rate."""
    now = time.time_ns()
    stats.cpu.timestamp = stats.memory.timestamp = now
    stats.cpu.usage_core_nano_seconds.value = usage.cpu_ns
    elapsed = now - before[0]
    rate = (usage.cpu_ns - before[1]) * 1_000_000_000 // elapsed if before[0] and elapsed > 0 else 0
    stats.cpu.usage_nano_cores.value = max(rate, 0)
    memory = stats.memory
    memory.usage_bytes.value = usage.memory_bytes
    memory.working_set_bytes.value = usage.working_set_bytes
    memory.rss_bytes.value = usage.rss_bytes
    memory.page_faults.value = usage.page_faults
    memory.major_page_faults.value = usage.major_page_faults
    if usage.memory_limit_bytes is not None:
        memory.available_bytes.value = max(usage.memory_limit_bytes - usage.working_set_bytes, 0)
    if usage.swap_bytes is not None and isinstance(stats, cri.ContainerStats):
        stats.swap.timestamp = now
        stats.swap.swap_usage_bytes.value = usage.swap_bytes
    return now, usage.cpu_ns


def disk_usage(directory: Path) -> tuple[int, int]:
    """Bytes and inodes below a directory; links are not followed. What vanishes meanwhile does not count."""
    size = count = 0
    pending = [str(directory)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    count += 1
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
        except OSError:
            continue
    return size, count + 1


_Device = tuple[str, int, int, int, int]


def _devices(pid: int) -> list[_Device]:
    """(name, rx bytes, rx errors, tx bytes, tx errors) of the network devices a process sees. Source: proc(5)."""
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    except OSError:
        return []
    return parse_devices(lines)


def parse_devices(lines: Sequence[str]) -> list[_Device]:
    """Pure: the rows of /proc/net/dev, without loopback."""
    found: list[_Device] = []
    for line in lines:
        name, _, rest = line.partition(":")
        numbers = [int(word) for word in rest.split()]
        if name.strip() != "lo":
            found.append((name.strip(), numbers[0], numbers[2], numbers[8], numbers[10]))
    return found


def _fill_network(usage: cri.NetworkUsage, devices: Sequence[_Device]) -> None:
    usage.timestamp = time.time_ns()
    for index, (name, rx_bytes, rx_errors, tx_bytes, tx_errors) in enumerate(devices):
        device = usage.default_interface if index == 0 else usage.interfaces.add()
        device.name = name
        device.rx_bytes.value, device.rx_errors.value = rx_bytes, rx_errors
        device.tx_bytes.value, device.tx_errors.value = tx_bytes, tx_errors
