"""``ctl version``: of this program and of the server."""

import asyncio
from importlib.metadata import version as version_of
from typing import Any

import click

from ctl.context import Context, pass_obj


@click.command()
@click.option("--client", "client_only", is_flag=True, help="Only this program's; asks no server.")
@pass_obj
def version(context: Context, client_only: bool) -> None:
    """Print versions."""
    click.echo(f"Client Version: v{version_of('knarr')}")
    if client_only:
        return
    answer = asyncio.run(_ask(context))
    click.echo(f"Server Version: v{answer.version.removeprefix('v')}")
    click.echo(f"Kubernetes API: {answer.kubernetes}")


async def _ask(context: Context) -> Any:
    async with context.client() as client:
        return await client.version()
