"""``ctl api-resources``: the kinds that the server serves."""

import click

from control.client import Client
from ctl.command import cluster_command
from ctl.context import Context
from ctl.table import render

HEADER = ("NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND")


@cluster_command("api-resources")
@click.option("--namespaced", type=bool, default=None, metavar="BOOL", help="Only namespaced kinds, or only others.")
@click.option("-o", "--output", "output_format", type=click.Choice(["wide", "name"]), help="wide adds CATEGORIES.")
@click.option("--no-headers", is_flag=True, help="No column names.")
async def api_resources(
    context: Context, client: Client, namespaced: bool | None, output_format: str | None, no_headers: bool
) -> None:
    """List the kinds that the server serves, with their short names."""
    found = [each for each in await client.resources() if namespaced is None or each.namespaced == namespaced]
    found.sort(key=lambda each: (each.type.api_version.rpartition("/")[0], each.plural))
    if output_format == "name":
        for each in found:
            group = each.type.api_version.rpartition("/")[0]
            click.echo(f"{each.plural}.{group}" if group else each.plural)
        return
    wide = output_format == "wide"
    rows = [
        (
            each.plural,
            ",".join(each.short_names),
            each.type.api_version,
            str(each.namespaced).lower(),
            each.type.kind,
            *([",".join(each.categories)] if wide else []),
        )
        for each in found
    ]
    header = (*HEADER, "CATEGORIES") if wide else HEADER
    click.echo(render(() if no_headers else header, rows), nl=False)
