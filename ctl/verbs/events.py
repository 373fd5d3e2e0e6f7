"""``ctl events``: what happened, oldest first."""

import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import click

from control.api.kinds import by_name
from control.api.printers.core import last_seen
from control.client import Client, errors
from ctl.command import all_namespaces, cluster_command
from ctl.context import Context
from ctl.resources import one_object
from ctl.table import render
from ctl.verbs.get import list_all
from protos.k8s import core_v1_pb2 as core

HEADER = ("LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE")


def happened(event: core.Event) -> tuple[int, int, str]:
    """When an event happened last, to sort by; its name decides between equals."""
    stamps: list[Any] = [event.lastTimestamp, event.series.lastObservedTime, event.eventTime, event.firstTimestamp]
    newest = max(((stamp.seconds, stamp.nanos) for stamp in stamps), default=(0, 0))
    return (*newest, event.metadata.name)


def selector_for(kind: str, name: str, namespace: str = "", uid: str = "") -> str:
    """The field selector for events about one object."""
    fields = {"kind": kind, "name": name, "namespace": namespace, "uid": uid}
    return ",".join(f"involvedObject.{key}={value}" for key, value in fields.items() if value)


@cluster_command()
@all_namespaces
@click.option("--for", "about", default="", metavar="TYPE/NAME", help="Only about this object.")
@click.option("--types", default="", metavar="TYPES", help="Only Normal, or only Warning.")
@click.option("-w", "--watch", is_flag=True, help="Go on as they come.")
@click.option("--no-headers", is_flag=True, help="No column names.")
async def events(
    context: Context, client: Client, all_namespaces: bool, about: str, types: str, watch: bool, no_headers: bool
) -> None:
    """List events in the order they happened."""
    namespace = "" if all_namespaces else context.current_namespace()
    selector = ""
    if about:
        kind, name = one_object([about])
        selector = selector_for(kind.kind, name)
    if types:
        selector = ",".join(part for part in (selector, f"type={types}") if part)
    page = await client.list(core.Event, namespace or None, field_selector=selector)
    found = sorted(page.items, key=happened)
    if not found and not watch:
        where = "" if all_namespaces else f" in {namespace} namespace."
        click.echo(f"No events found{where}", err=True)
        return
    click.echo(_table(found, all_namespaces, not no_headers), nl=False)
    if watch:
        await _follow(client, namespace, selector, page.resource_version, all_namespaces)


async def _follow(client: Client, namespace: str, selector: str, version: str, with_namespace: bool) -> None:
    while True:
        watch = client.watch(core.Event, namespace or None, field_selector=selector, resource_version=version)
        try:
            async with aclosing(watch) as changes:
                async for change in changes:
                    version = change.resource_version or version
                    if change.type in ("ADDED", "MODIFIED"):
                        click.echo(_table([change.object], with_namespace, headers=False), nl=False)
        except errors.Expired:
            version = (await client.list(core.Event, namespace or None, limit=1)).resource_version


def _table(found: Sequence[Any], with_namespace: bool, headers: bool) -> str:
    now = time.time()
    lead = ("NAMESPACE",) if with_namespace else ()
    rows = [
        (
            *((event.metadata.namespace,) if with_namespace else ()),
            last_seen(event, now),
            event.type,
            event.reason,
            f"{event.involvedObject.kind}/{event.involvedObject.name}",
            event.message.strip(),
        )
        for event in found
    ]
    return render((*lead, *HEADER) if headers else (), rows)


async def events_about(client: Client, obj: Any, kind: str) -> list[core.Event]:
    """The events about one object, oldest first."""
    meta = obj.metadata
    selector = selector_for(kind, meta.name, meta.namespace, "" if kind == "Node" else meta.uid)
    found = await list_all(client, by_name("events"), meta.namespace, field_selector=selector)
    return sorted(found, key=happened)
