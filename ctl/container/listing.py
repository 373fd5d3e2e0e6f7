"""``ps`` and ``port``."""

import asyncio
import json
import re
import time
from datetime import datetime
from typing import Any

import click

from ctl.container import template
from ctl.container.group import DaemonError, container_command
from ctl.container.node import Container, Node, choose
from ctl.container.spec import command_line, shown_command
from ctl.container.state import ports_text, since, state_of, status_text, table
from ctl.cri.show import human_duration, human_size
from ctl.errors import fail

COMMAND_CHARACTERS = 20
HEADINGS = {
    "ID": "CONTAINER ID",
    "RunningFor": "CREATED",
    "CreatedAt": "CREATED AT",
    "LocalVolumes": "LOCAL VOLUMES",
}
COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
FILTERS = ("id", "name", "label", "status", "ancestor", "exited", "before", "since", "volume", "network", "publish")


@container_command("ps")
@click.option("-a", "--all", "every", is_flag=True, help="Those that do not run, too.")
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.option(
    "-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE", help=f"{', '.join(FILTERS)}; repeatable."
)
@click.option("--format", "form", default="", metavar="TEMPLATE", help="table, json, or a Go template.")
@click.option("-n", "--last", type=int, default=-1, metavar="N", help="The N newest, of all.")
@click.option("-l", "--latest", is_flag=True, help="The newest, of all.")
@click.option("--no-trunc", is_flag=True, help="Do not cut ids and commands.")
@click.option("-s", "--size", "sizes", is_flag=True, help="How much they have written to their own layer.")
async def ps(
    node: Node,
    every: bool,
    quiet: bool,
    filters: tuple[str, ...],
    form: str,
    last: int,
    latest: bool,
    no_trunc: bool,
    sizes: bool,
) -> None:
    """List containers, newest first."""
    wanted = parse_filters(filters)
    last = 1 if latest else last
    every = every or last >= 0 or bool({"status", "exited"} & wanted.keys())
    containers = [c for c in await node.tidy() if every or c.is_running]
    rows = await asyncio.gather(*(describe(node, c, no_trunc, sizes or "Size" in form) for c in containers))
    bounds = await _bounds(node, wanted)
    chosen = [row for container, row in zip(containers, rows, strict=True) if matches(container, row, wanted, bounds)]
    chosen = chosen[:last] if last >= 0 else chosen
    click.echo(shown(chosen, form, quiet, sizes), nl=False)


def shown(rows: list[dict[str, Any]], form: str, quiet: bool, sizes: bool) -> str:
    """Pure: ids, JSON lines, a template's text, or the table."""
    if quiet:
        return "".join(f"{row['ID']}\n" for row in rows)
    if form == "json":
        return "".join(json.dumps(_public(row)) + "\n" for row in rows)
    if form and not form.startswith("table"):
        return "".join(template.render(form, _public(row)) + "\n" for row in rows)
    columns = (*COLUMNS, "Size") if sizes else COLUMNS
    text = form.removeprefix("table").strip() or "\\t".join(f"{{{{.{name}}}}}" for name in columns)
    heading = re.sub(r"\{\{\s*\.(\w+)\s*\}\}", lambda match: HEADINGS.get(match[1], match[1].upper()), text)
    heading = re.sub(r"\{\{.*?\}\}", "", heading).replace("\\t", "\t")
    return table([heading.split("\t"), *(template.render(text, _public(row)).split("\t") for row in rows)])


def _public(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.startswith("_")}


async def describe(node: Node, container: Container, full: bool, sized: bool = False) -> dict[str, Any]:
    """One row, under docker's names."""
    spec = container.spec
    status = (await node.status(container))[0] if container.cri_id else None
    state = state_of(container, status)
    command = shown_command(command_line(spec, await image_config(node, spec.image_id)))
    if not full and len(command) > COMMAND_CHARACTERS:
        command = command[: COMMAND_CHARACTERS - 1] + "…"
    return {
        "ID": spec.id if full else spec.id[:12],
        "Image": spec.image,
        "Command": f'"{command}"',
        "CreatedAt": f"{datetime.fromtimestamp(spec.created_ns // 10**9).astimezone():%Y-%m-%d %H:%M:%S %z %Z}",
        "RunningFor": f"{human_duration(since(spec.created_ns))} ago",
        "Ports": ports_text(spec, container.is_running),
        "State": state,
        "Status": status_text(state, status),
        "Size": await _size(node, container) if sized else "0B",
        "Names": spec.name,
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(spec.labels.items())),
        "Mounts": ",".join(mount.name or mount.source for mount in spec.mounts if mount.kind != "tmpfs"),
        "LocalVolumes": str(sum(mount.kind == "volume" for mount in spec.mounts)),
        "Networks": spec.network,
        "_status": status,
    }


async def image_config(node: Node, image_id: str) -> dict[str, Any]:
    """The OCI image's config; nothing of an image that is gone."""
    import grpc

    from protos.knarr import images_pb2 as pb

    try:
        answer = await node.images.Inspect(pb.InspectRequest(image=image_id))
    except grpc.aio.AioRpcError as err:
        if err.code() != grpc.StatusCode.NOT_FOUND:
            raise
        return {}
    config: dict[str, Any] = json.loads(answer.config).get("config") or {}
    return config


async def _size(node: Node, container: Container) -> str:
    from protos.cri import runtime_pb2 as pb

    if not container.cri_id:
        return "0B"
    stats = (await node.cri.ContainerStats(pb.ContainerStatsRequest(container_id=container.cri_id))).stats
    return human_size(stats.writable_layer.used_bytes.value, 3)


def parse_filters(texts: tuple[str, ...]) -> dict[str, list[str]]:
    """Pure: values by key. Raises CtlError for a key that we do not know."""
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if key not in FILTERS or not equals:
            fail(f"invalid filter '{text}': KEY=VALUE is expected, KEY one of {', '.join(FILTERS)}")
        found.setdefault(key, []).append(value)
    return found


async def _bounds(node: Node, wanted: dict[str, list[str]]) -> tuple[int, int]:
    """(created after, created before) in nanoseconds."""
    names = [name for key in ("since", "before") for name in wanted.get(key, ())]
    if not names:
        return 0, time.time_ns()
    containers = await node.containers()
    after = [choose(containers, name).spec.created_ns for name in wanted.get("since", ())]
    before = [choose(containers, name).spec.created_ns for name in wanted.get("before", ())]
    return max(after, default=0), min(before, default=time.time_ns())


def matches(container: Container, row: dict[str, Any], wanted: dict[str, list[str]], bounds: tuple[int, int]) -> bool:
    """Pure: every key must hold; of one key's values one, of labels all."""
    spec = container.spec
    status = row["_status"]
    labels = {f"{key}={value}" for key, value in spec.labels.items()} | set(spec.labels)
    code = str(status.exit_code) if status is not None and row["State"] == "exited" else None
    ports = {text for port in spec.ports for text in (str(port.host_port), f"{port.host_port}/{port.protocol}")}
    volumes = {word for mount in spec.mounts for word in (mount.name, mount.source, mount.target)}
    images = {spec.image, f"{spec.image}:latest", spec.image_id, spec.image_id.removeprefix("sha256:")[:12]}
    tests = {
        "id": lambda value: spec.id.startswith(value),
        "name": lambda value: re.search(value.replace("^/", "^"), spec.name) is not None,
        "status": lambda value: row["State"] == value,
        "ancestor": lambda value: value in images,
        "exited": lambda value: value == code,
        "volume": lambda value: value in volumes,
        "network": lambda value: value == spec.network,
        "publish": lambda value: value in ports,
    }
    return (
        bounds[0] < spec.created_ns < bounds[1]
        and all(label in labels for label in wanted.get("label", ()))
        and all(any(test(value) for value in wanted[key]) for key, test in tests.items() if key in wanted)
    )


@container_command("port")
@click.argument("name", metavar="CONTAINER")
@click.argument("inside", default="", metavar="[PORT[/PROTO]]")
async def port(node: Node, name: str, inside: str) -> None:
    """List the ports that are published, or where one is."""
    container = await node.find(name)
    wanted = inside if "/" in inside or not inside else f"{inside}/tcp"
    found = [p for p in container.spec.ports if container.is_running and wanted in ("", p.inside)]
    if wanted and not found:
        raise DaemonError(f"No public port '{wanted}' published for {name}")
    for published in found:
        where = f"{published.host_ip or '0.0.0.0'}:{published.host_port}"
        click.echo(where if wanted else f"{published.inside} -> {where}")
