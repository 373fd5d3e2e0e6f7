"""``ctl logs``: what a container wrote."""

import asyncio
import re
from collections.abc import Sequence
from datetime import datetime

import click

from control.client import Client
from ctl.command import cluster_command
from ctl.context import Context
from ctl.durations import parse_duration
from ctl.errors import CtlError
from ctl.pods import container_names, container_of, pod_named
from ctl.resources import by_name
from ctl.terminal import write_all
from ctl.verbs.get import list_all
from protos.k8s import core_v1_pb2 as core
from protos.knarr import stream_pb2 as stream

TAIL_BY_SELECTOR = 10
"""Lines shown of each pod when many are asked, as kubectl."""

STDOUT = 1


@cluster_command()
@click.argument("words", nargs=-1, metavar="[POD|TYPE/NAME] [CONTAINER]")
@click.option("-l", "--selector", default="", metavar="LABELS", help="Of every pod with these labels.")
@click.option("-c", "--container", default="", help="Default the pod's default container, or its first.")
@click.option("--all-containers", is_flag=True, help="Of every container of the pod.")
@click.option("-f", "--follow", is_flag=True, help="Go on as it is written.")
@click.option("-p", "--previous", is_flag=True, help="Of the instance before the last restart.")
@click.option("--timestamps", is_flag=True, help="Each line's time before it.")
@click.option("--tail", type=int, default=-1, metavar="N", help="Only the last N lines.")
@click.option("--since", default="", metavar="DURATION", help="Only lines younger than this.")
@click.option("--since-time", default="", metavar="RFC3339", help="Only lines after this instant.")
@click.option("--limit-bytes", type=int, default=0, metavar="N", help="Stop after N bytes.")
@click.option("--prefix", is_flag=True, help="Pod and container before each line.")
async def logs(
    context: Context,
    client: Client,
    words: Sequence[str],
    selector: str,
    container: str,
    all_containers: bool,
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail: int,
    since: str,
    since_time: str,
    limit_bytes: int,
    prefix: bool,
) -> None:
    """Print a container's log: 'ctl logs POD', 'ctl logs -f rc/kubia', 'ctl logs -l run=kubia --prefix'."""
    if bool(words) == bool(selector) or len(words) > 2:
        raise CtlError("expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]', or -l LABELS")
    if since and since_time:
        raise CtlError("at most one of --since and --since-time may be used")
    namespace = context.current_namespace()
    pods = await _pods(client, words, selector, namespace)
    if not pods:
        click.echo(f"No resources found in {namespace} namespace.", err=True)
    wanted = container or (words[1] if len(words) == 2 else "")
    requests = [
        _request(pod, name, follow, previous, timestamps, since, since_time, limit_bytes)
        for pod in pods
        for name in (container_names(pod) if all_containers else [container_of(pod, wanted)])
    ]
    lines = TAIL_BY_SELECTOR if selector and tail < 0 else tail
    for request in requests:
        if lines >= 0:
            request.tail_lines = lines
    await _print(client, requests, prefix, follow)


async def _pods(client: Client, words: Sequence[str], selector: str, namespace: str) -> list[core.Pod]:
    if selector:
        return await list_all(client, by_name("pods"), namespace, selector)
    return [await pod_named(client, words[0], namespace, announce=True)]


def _request(
    pod: core.Pod,
    container: str,
    follow: bool,
    previous: bool,
    timestamps: bool,
    since: str,
    since_time: str,
    limit_bytes: int,
) -> stream.LogRequest:
    target = stream.ContainerRef(namespace=pod.metadata.namespace, pod=pod.metadata.name, container=container)
    return stream.LogRequest(
        target=target,
        follow=follow,
        previous=previous,
        timestamps=timestamps,
        since_seconds=max(1, round(parse_duration(since))) if since else 0,
        since_time_ns=_instant_ns(since_time) if since_time else 0,
        limit_bytes=limit_bytes,
    )


def _instant_ns(text: str) -> int:
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1e9)
    except ValueError:
        raise CtlError(f'"{text}" is not an RFC 3339 time like 2026-01-31T12:00:00Z') from None


async def _print(client: Client, requests: Sequence[stream.LogRequest], prefix: bool, together: bool) -> None:
    """One after the other; followed logs together."""
    if not together:
        for request in requests:
            await _copy(client, request, prefix)
        return
    async with asyncio.TaskGroup() as tasks:
        for request in requests:
            tasks.create_task(_copy(client, request, prefix))


async def _copy(client: Client, request: stream.LogRequest, prefix: bool) -> None:
    lead = f"[pod/{request.target.pod}/{request.target.container}] ".encode() if prefix else b""
    at_line_start = True
    async for chunk in client.log(request):
        data = chunk.data
        if lead:
            data = re.sub(rb"\n(?=.)", b"\n" + lead, (lead if at_line_start else b"") + data, flags=re.DOTALL)
            at_line_start = data.endswith(b"\n")
        write_all(STDOUT, data)
