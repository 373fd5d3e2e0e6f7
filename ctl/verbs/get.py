"""``ctl get``: objects as tables, documents or chosen fields, once or as they change."""

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import click

from control.api.kinds import Kind, by_message
from control.api.printers import printer_of
from control.api.printers.parts import labels
from control.client import Client, errors
from ctl.command import all_namespaces, cluster_command, filenames, output, selectors
from ctl.context import Context
from ctl.errors import CtlError, Failure, explain
from ctl.manifests import place, read_objects
from ctl.output import FORMATS, Output, format_objects, parse_output, sort_key
from ctl.resources import Request, named, parse_requests
from ctl.table import GAP, align

PAGE = 500
"""Objects per list request, as kubectl's chunk size."""


@dataclass(frozen=True)
class Options:
    """The flags of ``get``."""

    namespace: str
    all_namespaces: bool
    selector: str
    field_selector: str
    output: Output
    show_labels: bool
    label_columns: tuple[str, ...]
    headers: bool
    show_kind: bool
    ignore_not_found: bool


@cluster_command()
@click.argument("resources", nargs=-1)
@all_namespaces
@selectors
@filenames
@output(FORMATS)
@click.option("-w", "--watch", is_flag=True, help="After listing, print changes as they come.")
@click.option("--watch-only", is_flag=True, help="Print changes only.")
@click.option("--show-labels", is_flag=True, help="All labels in a last column.")
@click.option("-L", "--label-columns", multiple=True, metavar="KEY", help="A column for a label.")
@click.option("--show-kind", is_flag=True, help="Print names as TYPE/NAME.")
@click.option("--no-headers", is_flag=True, help="No column names.")
@click.option("--sort-by", default="", metavar="PATH", help="Order by a field, e.g. .metadata.creationTimestamp.")
@click.option("--ignore-not-found", is_flag=True, help="A missing object is no error.")
async def get(
    context: Context,
    client: Client,
    resources: Sequence[str],
    files: Sequence[str],
    all_namespaces: bool,
    selector: str,
    field_selector: str,
    output_format: str,
    watch: bool,
    watch_only: bool,
    show_labels: bool,
    label_columns: Sequence[str],
    show_kind: bool,
    no_headers: bool,
    sort_by: str,
    ignore_not_found: bool,
) -> None:
    """Display objects: 'ctl get pods', 'ctl get rc,svc -o wide', 'ctl get pod/x -o yaml', 'ctl get all -A'."""
    requests = _from_files(context, files) if files else parse_requests(resources)
    options = Options(
        namespace="" if all_namespaces else context.current_namespace(),
        all_namespaces=all_namespaces,
        selector=selector,
        field_selector=field_selector,
        output=parse_output(output_format),
        show_labels=show_labels,
        label_columns=tuple(key for part in label_columns for key in part.split(",")),
        headers=not no_headers,
        show_kind=show_kind or len({request.kind for request in requests}) > 1,
        ignore_not_found=ignore_not_found,
    )
    if options.all_namespaces and any(request.names for request in requests):
        raise CtlError("a resource cannot be retrieved by name across all namespaces")
    if watch or watch_only:
        await _watch(client, requests, options, watch_only)
    else:
        await _get(client, requests, options, sort_by)


def _from_files(context: Context, files: Sequence[str]) -> list[Request]:
    namespace, explicit = context.current_namespace(), context.namespace is not None
    objects = [place(obj, namespace, explicit) for obj in read_objects(files)]
    return [Request(by_message(obj), (obj.metadata.name,)) for obj in objects]


# --- once ----------------------------------------------------------------------------------------------------------


async def _get(client: Client, requests: Sequence[Request], options: Options, sort_by: str) -> None:
    found: list[tuple[Kind, list[Any]]] = []
    failed = False
    for request in requests:
        objects, missing = await fetch(client, request, options)
        for err in missing:
            failed = True
            click.echo(explain(err), err=True)
        if sort_by:
            objects.sort(key=sort_key(sort_by))
        found.append((request.kind, objects))
    _print(requests, _merged(found), options, failed)
    if failed:
        raise Failure(1)


def _merged(found: list[tuple[Kind, list[Any]]]) -> list[tuple[Kind, list[Any]]]:
    """Requests of the same kind in one table (``get pod/a pod/b``)."""
    merged: dict[Kind, list[Any]] = {}
    for kind, objects in found:
        merged.setdefault(kind, []).extend(objects)
    return list(merged.items())


async def fetch(client: Client, request: Request, options: Options) -> tuple[list[Any], list[errors.NotFound]]:
    """The objects of a request, and an error for each named one that does not exist."""
    namespace = options.namespace if request.kind.namespaced else ""
    if not request.names:
        return await list_all(client, request.kind, namespace, options.selector, options.field_selector), []
    if options.selector or options.field_selector:
        raise CtlError("name cannot be provided when a selector is specified")
    objects, missing = [], []
    for name in request.names:
        try:
            objects.append(await client.get(request.kind.message, name, namespace=namespace))
        except errors.NotFound as err:
            if not options.ignore_not_found:
                missing.append(err)
    return objects, missing


async def list_all(
    client: Client, kind: Kind, namespace: str, selector: str = "", field_selector: str = ""
) -> list[Any]:
    """Every object of a kind, page by page at one version."""
    items: list[Any] = []
    token = ""
    while True:
        page = await client.list(kind.message, namespace or None, selector, field_selector, PAGE, token)
        items += page.items
        token = page.continue_token
        if not token:
            return items


def _print(requests: Sequence[Request], found: list[tuple[Kind, list[Any]]], options: Options, failed: bool) -> None:
    everything = [obj for _, objects in found for obj in objects]
    if not options.output.is_table:
        single = len(requests) == 1 and len(requests[0].names) == 1
        if everything or not single:
            text = format_objects(options.output, everything, as_list=not single, headers=options.headers)
            click.echo(text, nl=False)
        return
    tables = [Table(kind, options).render(objects) for kind, objects in found if objects]
    click.echo("\n".join(tables), nl=False)
    if not tables and not failed and not options.ignore_not_found:
        click.echo(_nothing(requests, options), err=True)


def _nothing(requests: Sequence[Request], options: Options) -> str:
    if options.all_namespaces or not all(request.kind.namespaced for request in requests):
        return "No resources found"
    return f"No resources found in {options.namespace} namespace."


class Table:
    """Rows of one kind. It remembers its widths, so that rows printed later line up with those before."""

    def __init__(self, kind: Kind, options: Options) -> None:
        self.kind, self.options, self.printer = kind, options, printer_of(kind)
        self.with_namespace = options.all_namespaces and kind.namespaced
        self.widths: list[int] = []

    def render(self, objects: Sequence[Any], headers: bool = True) -> str:
        """The lines of ``objects``."""
        now = time.time()
        lines = [self._row(obj, now) for obj in objects]
        if headers and self.options.headers:
            lines.insert(0, self._header())
        return "".join(f"{line}\n" for line in self._aligned(lines))

    def _aligned(self, lines: list[list[str]]) -> list[str]:
        if not self.widths:
            columns = max((len(line) for line in lines), default=0)
            self.widths = [max(len(line[i]) for line in lines) for i in range(columns)]
        padded = [[cell.ljust(self.widths[i]) for i, cell in enumerate(line[:-1])] + line[-1:] for line in lines]
        return align(padded, GAP)

    def _header(self) -> list[str]:
        options = self.options
        names = (["NAMESPACE"] if self.with_namespace else []) + self.printer.header(options.output.wide)
        names += [key.rpartition("/")[2].upper() for key in options.label_columns]
        return names + (["LABELS"] if options.show_labels else [])

    def _row(self, obj: Any, now: float) -> list[str]:
        options = self.options
        cells = self.printer.row(obj, now, options.output.wide)
        if options.show_kind and self.printer.names[0] == "NAME":
            cells[0] = named(self.kind, cells[0])
        cells = ([obj.metadata.namespace] if self.with_namespace else []) + cells
        cells += [obj.metadata.labels.get(key, "") for key in options.label_columns]
        return cells + ([labels(obj.metadata.labels)] if options.show_labels else [])


# --- as they change ------------------------------------------------------------------------------------------------


async def _watch(client: Client, requests: Sequence[Request], options: Options, only_changes: bool) -> None:
    """Follow each kind; what is there first is printed first. Ends with Ctrl-C."""
    async with asyncio.TaskGroup() as tasks:
        for request in requests:
            if len(request.names) > 1:
                raise CtlError("you may only watch a single object or all of a kind")
            tasks.create_task(_follow(client, request, options, only_changes))


async def _follow(client: Client, request: Request, options: Options, only_changes: bool) -> None:
    table, namespace = Table(request.kind, options), options.namespace if request.kind.namespaced else ""
    fields = f"metadata.name={request.names[0]}" if request.names else options.field_selector
    while True:
        page = await client.list(request.kind.message, namespace or None, options.selector, fields)
        if request.names and not page.items:
            raise errors.not_found(request.kind, request.names[0])
        if page.items and not only_changes:
            _show(table, page.items, options, headers=not table.widths)
        only_changes = True
        try:
            await _changes(client, request.kind, namespace, fields, page.resource_version, table, options)
        except errors.Expired:
            continue


async def _changes(
    client: Client, kind: Kind, namespace: str, fields: str, version: str, table: Table, options: Options
) -> None:
    """Print what happens after ``version``, over as many watches as the server makes of it. Raises Expired."""
    while True:
        watch = client.watch(kind.message, namespace or None, options.selector, fields, version)
        async with aclosing(watch) as events:
            async for event in events:
                version = event.resource_version or version
                if event.type != "BOOKMARK":
                    _show(table, [event.object], options, headers=not table.widths)


def _show(table: Table, objects: Sequence[Any], options: Options, headers: bool) -> None:
    if options.output.is_table:
        click.echo(table.render(objects, headers), nl=False)
    else:
        for obj in objects:
            _show_document(obj, options)
    sys.stdout.flush()


def _show_document(obj: Any, options: Options) -> None:
    separator = "---\n" if options.output.form == "yaml" else ""
    text = format_objects(options.output, [obj], as_list=False, headers=False)
    click.echo(separator + text, nl=not text.endswith("\n"))
