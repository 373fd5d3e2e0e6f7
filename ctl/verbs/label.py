"""``ctl label`` and ``ctl annotate``: the same command over two maps."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from control.client import Client
from ctl.command import all_namespaces, cluster_command, selectors
from ctl.context import Context
from ctl.errors import CtlError
from ctl.resources import Request, named, parse_requests
from ctl.verbs.get import list_all

Changes = dict[str, str | None]
"""Key to new value; None removes."""


def split_changes(words: Sequence[str]) -> tuple[list[str], Changes]:
    """``[pods, x, a=b, c-]`` as ``[pods, x]`` and ``{a: b, c: None}``. Raises CtlError when there are no changes."""
    first = next((at for at, word in enumerate(words) if at and ("=" in word or word.endswith("-"))), len(words))
    changes: Changes = {}
    for word in words[first:]:
        key, equals, value = word.partition("=")
        if not equals and not word.endswith("-"):
            raise CtlError(f'"{word}" is neither KEY=VALUE nor KEY-')
        changes[key if equals else word[:-1]] = value if equals else None
    if not changes:
        raise CtlError("at least one update is required: KEY=VALUE sets, KEY- removes")
    return list(words[:first]), changes


def check_overwrites(present: Mapping[str, str], changes: Changes) -> None:
    """Raises CtlError when a key has another value already."""
    for key, value in changes.items():
        if value is not None and present.get(key, value) != value:
            raise CtlError(f"'{key}' already has a value ({present[key]}), and --overwrite is false")


async def _change(
    context: Context,
    client: Client,
    field: str,
    words: Sequence[str],
    selector: str,
    field_selector: str,
    everything: bool,
    overwrite: bool,
    all_namespaces: bool,
) -> None:
    targets, changes = split_changes(words)
    for request in parse_requests(targets):
        namespace = context.current_namespace() if request.kind.namespaced and not all_namespaces else ""
        for obj in await _objects(client, request, namespace, selector, field_selector, everything):
            name = named(request.kind, obj.metadata.name)
            present = getattr(obj.metadata, field)
            if not overwrite:
                check_overwrites(present, changes)
            for key in missing_keys(present, changes):
                click.echo(f'{field[:-1]} "{key}" not found.')
            word = outcome(field, present, changes)
            if not word.startswith("not "):
                await client.patch(
                    request.kind.message, obj.metadata.name, {"metadata": {field: changes}}, obj.metadata.namespace
                )
            click.echo(f"{name} {word}")


def missing_keys(present: Mapping[str, str], changes: Changes) -> list[str]:
    """Keys to remove that are not there."""
    return [key for key, value in changes.items() if value is None and key not in present]


def outcome(field: str, present: Mapping[str, str], changes: Changes) -> str:
    """What is said of an object: ``labeled``, ``unlabeled``, ``annotated``, or ``not labeled`` when nothing changes."""
    done = "labeled" if field == "labels" else "annotated"
    if all(present.get(key) == value for key, value in changes.items()):
        return f"not {done}"
    only_removals = all(value is None for value in changes.values())
    return "unlabeled" if field == "labels" and only_removals else done


async def _objects(
    client: Client, request: Request, namespace: str, selector: str, field_selector: str, everything: bool
) -> list[Any]:
    if request.names:
        return [await client.get(request.kind.message, name, namespace=namespace) for name in request.names]
    if not (selector or field_selector or everything):
        raise CtlError("name the objects, or use -l or --all")
    return await list_all(client, request.kind, namespace, selector, field_selector)


def _command(name: str, field: str, help_text: str) -> click.Command:
    async def change(
        context: Context,
        client: Client,
        words: Sequence[str],
        selector: str,
        field_selector: str,
        everything: bool,
        overwrite: bool,
        all_namespaces: bool,
    ) -> None:
        await _change(context, client, field, words, selector, field_selector, everything, overwrite, all_namespaces)

    change.__doc__ = help_text
    for option in (
        selectors,
        all_namespaces,
        click.option("--overwrite", is_flag=True, help="Change values that are there already."),
        click.option("--all", "everything", is_flag=True, help="Every object of the kind in the namespace."),
        click.argument("words", nargs=-1, required=True, metavar="TYPE NAME KEY=VALUE... KEY-..."),
    ):
        change = option(change)
    made: click.Command = cluster_command(name)(change)
    return made


label = _command("label", "labels", "Set labels (KEY=VALUE) or remove them (KEY-): 'ctl label pod x app=web'.")
annotate = _command("annotate", "annotations", "Set annotations (KEY=VALUE) or remove them (KEY-).")
