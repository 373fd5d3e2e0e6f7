"""What every command that talks to the apiserver has in common: a client, an event loop, shared flags."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import click

from ctl.context import Context

Function = Callable[..., Any]


def cluster_command(name: str | None = None, **attributes: Any) -> Callable[[Callable[..., Awaitable[None]]], Any]:
    """Make a click command of ``async def f(context, client, ...)``: the client is open while it runs."""

    def decorate(function: Callable[..., Awaitable[None]]) -> Any:
        @click.pass_obj
        def command(context: Context, /, **values: Any) -> None:
            asyncio.run(_with_client(function, context, values))

        return click.command(name, **attributes)(functools.update_wrapper(command, function))

    return decorate


async def _with_client(function: Callable[..., Awaitable[None]], context: Context, values: dict[str, Any]) -> None:
    async with context.client() as client:
        await function(context, client, **values)


def all_namespaces(function: Function) -> Function:
    """``-A``."""
    return click.option("-A", "--all-namespaces", is_flag=True, help="In every namespace.")(function)


def selectors(function: Function) -> Function:
    """``-l`` and ``--field-selector``."""
    label = click.option("-l", "--selector", default="", metavar="LABELS", help="Only objects with these labels.")
    field = click.option("--field-selector", default="", metavar="FIELDS", help="Only objects with these fields.")
    return label(field(function))


def filenames(function: Function) -> Function:
    """``-f``, repeatable."""
    return click.option(
        "-f",
        "--filename",
        "files",
        multiple=True,
        metavar="FILE",
        help="A manifest, a directory of them, or - (stdin).",
    )(function)


def dry_run(function: Function) -> Function:
    """``--dry-run``; plain means client, as it did in kubectl."""
    return click.option(
        "--dry-run",
        type=click.Choice(["none", "client", "server"]),
        default="none",
        is_flag=False,
        flag_value="client",
        help="Show what would be written: by this program, or after the server's defaulting and checks.",
    )(function)


def output(formats: str = "json|yaml|name|jsonpath=...") -> Callable[[Function], Function]:
    """``-o``."""
    return click.option("-o", "--output", "output_format", default="", metavar="FORMAT", help=f"One of: {formats}.")
