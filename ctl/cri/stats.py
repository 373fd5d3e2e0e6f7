"""Usage: stats, statsp."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import click

from ctl.cri import options, show
from ctl.cri.client import Cri, cri_command
from ctl.cri.config import labels_of
from ctl.cri.group import cri
from ctl.errors import CtlError

CONTAINER_COLUMNS = ("CONTAINER", "NAME", "CPU %", "MEM", "DISK", "INODES", "SWAP")
POD_COLUMNS = ("POD", "POD ID", "CPU %", "MEM")
CLEAR_SCREEN = "\033[2J\033[H"
WATCH_S = 0.5


@cri_command(cri, "stats")
@click.argument("container", default="", metavar="[ID]")
@options.by_id
@options.by_pod
@options.by_label
@click.option("-a", "--all", "every", is_flag=True, help="Containers that use nothing too.")
@options.seconds
@options.watch
@options.output()
async def stats(
    cri: Cri,
    container: str,
    by_id: str,
    pod: str,
    labels: tuple[str, ...],
    every: bool,
    seconds: float,
    watch: bool,
    form: str,
) -> None:
    """List container(s) resource usage statistics."""
    from protos.cri import runtime_pb2 as pb

    wanted = pb.ContainerStatsFilter(id=container or by_id, pod_sandbox_id=pod, label_selector=labels_of(labels))

    async def sample() -> list[Any]:
        rpc = cri.runtime.ListContainerStats(pb.ListContainerStatsRequest(filter=wanted))
        return sorted((await cri.call(rpc, "listing container stats")).stats, key=lambda one: one.attributes.id)

    def row(one: Any, percent: float) -> tuple[str, ...]:
        layer = one.writable_layer
        sizes = (one.memory.working_set_bytes.value, layer.used_bytes.value, one.swap.swap_usage_bytes.value)
        memory, disk, swap = map(show.human_size, sizes)
        name, inodes = one.attributes.metadata.name, str(layer.inodes_used.value)
        return (show.short_id(one.attributes.id), name, f"{percent:.2f}", memory, disk, inodes, swap)

    await _display(sample, lambda one: one, CONTAINER_COLUMNS, row, every, seconds, watch, form)


@cri_command(cri, "statsp")
@click.argument("pod", default="", metavar="[ID]")
@options.by_id
@options.by_label
@options.seconds
@options.watch
@options.output()
async def statsp(
    cri: Cri, pod: str, by_id: str, labels: tuple[str, ...], seconds: float, watch: bool, form: str
) -> None:
    """List pod statistics."""
    from protos.cri import runtime_pb2 as pb

    wanted = pb.PodSandboxStatsFilter(id=pod or by_id, label_selector=labels_of(labels))

    async def sample() -> list[Any]:
        rpc = cri.runtime.ListPodSandboxStats(pb.ListPodSandboxStatsRequest(filter=wanted))
        return sorted((await cri.call(rpc, "listing pod sandbox stats")).stats, key=lambda one: one.attributes.id)

    def row(one: Any, percent: float) -> tuple[str, ...]:
        memory = show.human_size(one.linux.memory.working_set_bytes.value)
        return (one.attributes.metadata.name, show.short_id(one.attributes.id), f"{percent:.2f}", memory)

    await _display(sample, lambda one: one.linux, POD_COLUMNS, row, False, seconds, watch, form)


async def _display(
    sample: Callable[[], Awaitable[list[Any]]],
    usage: Callable[[Any], Any],
    columns: tuple[str, ...],
    row: Callable[[Any, float], tuple[str, ...]],
    every: bool,
    seconds: float,
    watch: bool,
    form: str,
) -> None:
    """Two samples make a percentage; ``usage`` finds cpu and memory in one sample's item."""
    while True:
        before = await sample()
        if form != "table":
            show.print_data({"stats": [show.to_dict(one) for one in before]}, form)
        else:
            await asyncio.sleep(seconds)
            earlier = {one.attributes.id: usage(one) for one in before}
            pairs = [(one, earlier[one.attributes.id]) for one in await sample() if one.attributes.id in earlier]
            rows = [row(one, cpu_percent(old, usage(one))) for one, old in pairs if every or _is_used(usage(one))]
            click.echo((CLEAR_SCREEN if watch else "") + show.table([columns, *rows]), nl=False)
        if not watch:
            return
        await asyncio.sleep(WATCH_S)


def _is_used(usage: Any) -> bool:
    return bool(usage.cpu.usage_core_nano_seconds.value or usage.memory.working_set_bytes.value)


def cpu_percent(old: Any, new: Any) -> float:
    """Of one CPU, between two samples. Raises CtlError when the runtime did not measure in between."""
    used = new.cpu.usage_core_nano_seconds.value - old.cpu.usage_core_nano_seconds.value
    passed = new.cpu.timestamp - old.cpu.timestamp
    if passed == 0:
        if new.cpu.usage_core_nano_seconds.value == 0:
            return 0.0
        raise CtlError("cpu stat is not updated during sample: choose a longer one with --seconds")
    return 100.0 * used / passed
