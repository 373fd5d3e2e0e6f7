"""``ctl top``: CPU and memory in use, as the node runtime measures it."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass

import click

from ctl.context import Context, pass_obj
from ctl.errors import CtlError
from ctl.lab.settings import read_settings
from ctl.table import render
from protos.cri import runtime_pb2 as cri
from protos.cri import runtime_pb2_grpc
from protos.serving import open_channel

TIMEOUT_S = 10.0
NAMESPACE, POD, CONTAINER = (f"io.kubernetes.{what}" for what in ("pod.namespace", "pod.name", "container.name"))


@dataclass(frozen=True)
class Usage:
    """What one container, or several together, use now."""

    cpu_nano_cores: int = 0
    memory_bytes: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.cpu_nano_cores + other.cpu_nano_cores, self.memory_bytes + other.memory_bytes)

    def cells(self) -> tuple[str, str]:
        """As kubectl prints them: milli-cores and mebibytes, rounded up to the next whole."""
        return f"{-(-self.cpu_nano_cores // 1_000_000)}m", f"{self.memory_bytes >> 20}Mi"


Key = tuple[str, str, str]
"""Namespace, pod, container."""


@click.group()
def top() -> None:
    """Show CPU and memory in use, measured by the node runtime of this machine."""


@top.command()
@click.option("-A", "--all-namespaces", is_flag=True, help="In every namespace.")
@click.option("--containers", is_flag=True, help="A line per container.")
@click.option("--sort-by", type=click.Choice(["cpu", "memory"]), help="Largest first.")
@click.option("--no-headers", is_flag=True, help="No column names.")
@pass_obj
def pods(context: Context, all_namespaces: bool, containers: bool, sort_by: str | None, no_headers: bool) -> None:
    """Usage of pods."""
    namespace = "" if all_namespaces else context.current_namespace()
    usage = _summed(asyncio.run(_measure(context.runtime_endpoint)), namespace, containers)
    rows = sorted(usage.items())
    if sort_by:
        rows.sort(key=lambda row: -(row[1].cpu_nano_cores if sort_by == "cpu" else row[1].memory_bytes))
    if not rows:
        raise CtlError("no running pods" + ("" if all_namespaces else f" in {namespace} namespace"))
    names = (["NAMESPACE"] if all_namespaces else []) + ["POD" if containers else "NAME"]
    names += (["NAME"] if containers else []) + ["CPU(cores)", "MEMORY(bytes)"]
    first = 0 if all_namespaces else 1
    cells = [(*key[first : 3 if containers else 2], *used.cells()) for key, used in rows]
    click.echo(render(() if no_headers else names, cells), nl=False)


@top.command()
@pass_obj
def nodes(context: Context) -> None:
    """Usage of this node's pods together."""
    usage = sum(asyncio.run(_measure(context.runtime_endpoint)).values(), Usage())
    name = read_settings(context.layout).node_name
    click.echo(render(("NAME", "PODS CPU(cores)", "PODS MEMORY(bytes)"), [(name, *usage.cells())]), nl=False)


top.add_command(pods, "pod")
top.add_command(nodes, "node")


async def _measure(endpoint: str) -> dict[Key, Usage]:
    async with open_channel(endpoint) as channel:
        stub = runtime_pb2_grpc.RuntimeServiceStub(channel)
        answer = await stub.ListContainerStats(cri.ListContainerStatsRequest(), timeout=TIMEOUT_S)
    return {_key(stats): _usage(stats) for stats in answer.stats}


def _key(stats: cri.ContainerStats) -> Key:
    labels = stats.attributes.labels
    return (
        labels.get(NAMESPACE, ""),
        labels.get(POD, stats.attributes.id[:13]),
        labels.get(CONTAINER, stats.attributes.metadata.name),
    )


def _usage(stats: cri.ContainerStats) -> Usage:
    return Usage(stats.cpu.usage_nano_cores.value, stats.memory.working_set_bytes.value)


def _summed(usage: dict[Key, Usage], namespace: str, by_container: bool) -> dict[Key, Usage]:
    summed: defaultdict[Key, Usage] = defaultdict(Usage)
    for (space, pod, container), used in usage.items():
        if not namespace or space == namespace:
            summed[(space, pod, container if by_container else "")] += used
    return dict(summed)
