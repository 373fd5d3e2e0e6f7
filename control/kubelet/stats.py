"""Usage of the node and its pods, from the runtime's container stats and /proc. ``rate_nano_cores`` is pure."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from control.kubelet.machine import CpuTimes, memory_used_bytes, read_cpu
from control.kubelet.runtime import Runtime
from control.kubelet.state import CONTAINER_NAME, POD_NAME, POD_NAMESPACE, POD_UID
from protos.cri import runtime_pb2 as cri
from protos.knarr import node_pb2 as pb


@dataclass(frozen=True)
class Sample:
    """Cumulative CPU time of something at an instant."""

    cpu_ns: int
    at_ns: int


def rate_nano_cores(before: Sample | None, after: Sample) -> int:
    """CPU use between two samples, in billionths of a core; 0 when there is no interval."""
    if before is None or after.at_ns <= before.at_ns or after.cpu_ns < before.cpu_ns:
        return 0
    return (after.cpu_ns - before.cpu_ns) * 1_000_000_000 // (after.at_ns - before.at_ns)


class Stats:
    """Keeps the previous samples, to turn CPU times into rates."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._before: dict[str, Sample] = {}
        self._node_before: CpuTimes | None = read_cpu()

    async def read(self) -> pb.StatsResponse:
        """Usage now; rates are over the time since the last call, or the runtime's own where it gives them."""
        answer = await self._runtime.call("ListContainerStats", cri.ListContainerStatsRequest())
        response = pb.StatsResponse(node=self._node())
        pods: dict[str, pb.PodStats] = {}
        seen: dict[str, Sample] = {}
        for stats in sorted(
            answer.stats, key=lambda s: (s.attributes.labels.get(POD_NAME, ""), s.attributes.metadata.name)
        ):
            labels = stats.attributes.labels
            if POD_UID in labels:
                pod = pods.setdefault(labels[POD_UID], _pod(labels))
                usage = self._usage(stats, seen)
                pod.containers.add(name=labels.get(CONTAINER_NAME, stats.attributes.metadata.name), usage=usage)
                pod.usage.cpu_nano_cores += usage.cpu_nano_cores
                pod.usage.memory_working_set_bytes += usage.memory_working_set_bytes
                pod.usage.timestamp_ns = max(pod.usage.timestamp_ns, usage.timestamp_ns)
        self._before = seen
        response.pods.extend(pods.values())
        return response

    def _usage(self, stats: cri.ContainerStats, seen: dict[str, Sample]) -> pb.Usage:
        sample = Sample(stats.cpu.usage_core_nano_seconds.value, stats.cpu.timestamp)
        seen[stats.attributes.id] = sample
        own = stats.cpu.usage_nano_cores.value if stats.cpu.HasField("usage_nano_cores") else 0
        return pb.Usage(
            cpu_nano_cores=own or rate_nano_cores(self._before.get(stats.attributes.id), sample),
            memory_working_set_bytes=stats.memory.working_set_bytes.value,
            timestamp_ns=stats.cpu.timestamp,
        )

    def _node(self) -> pb.Usage:
        now, before = read_cpu(), self._node_before
        self._node_before = now
        last = Sample(before.busy_ns, before.at_ns) if before is not None else None
        rate = rate_nano_cores(last, Sample(now.busy_ns, now.at_ns))
        return pb.Usage(cpu_nano_cores=rate, memory_working_set_bytes=memory_used_bytes(), timestamp_ns=time.time_ns())


def _pod(labels: Mapping[str, str]) -> pb.PodStats:
    known = dict(labels)
    return pb.PodStats(namespace=known.get(POD_NAMESPACE, ""), name=known.get(POD_NAME, ""), uid=known.get(POD_UID, ""))
