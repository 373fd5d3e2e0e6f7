"""``ctl scale``: set how many replicas a workload wants."""

from collections.abc import Sequence

import click

from control.api.kinds import Kind
from control.client import Client
from ctl.command import cluster_command, selectors
from ctl.context import Context
from ctl.errors import CtlError
from ctl.resources import label_of, named, parse_requests
from ctl.verbs.get import list_all


@cluster_command()
@click.argument("words", nargs=-1, required=True, metavar="TYPE NAME...")
@selectors
@click.option("--all", "everything", is_flag=True, help="Every object of the kind in the namespace.")
@click.option("--replicas", type=int, required=True, metavar="N", help="The new size.")
@click.option("--current-replicas", type=int, default=-1, metavar="N", help="Only if this is the present size.")
async def scale(
    context: Context,
    client: Client,
    words: Sequence[str],
    selector: str,
    field_selector: str,
    everything: bool,
    replicas: int,
    current_replicas: int,
) -> None:
    """Set the number of replicas: 'ctl scale rc kubia --replicas=5'."""
    if replicas < 0:
        raise CtlError("The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0")
    namespace = context.current_namespace()
    for request in parse_requests(words):
        if "scale" not in request.kind.subresources:
            raise CtlError(f"a {request.kind.singular} cannot be scaled")
        names = list(request.names)
        if not names and (selector or field_selector or everything):
            found = await list_all(client, request.kind, namespace, selector, field_selector)
            names = [obj.metadata.name for obj in found]
        if not names:
            raise CtlError("name the objects to scale, or use -l or --all")
        for name in names:
            await _scale(client, request.kind, name, namespace, replicas, current_replicas)


async def _scale(client: Client, kind: Kind, name: str, namespace: str, replicas: int, current: int) -> None:
    if current >= 0:
        scale = await client.get_scale(kind.message, name, namespace)
        if scale.spec.replicas != current:
            raise CtlError(f"Expected replicas to be {current}, was {scale.spec.replicas} ({label_of(kind)} {name})")
        scale.spec.replicas = replicas
        await client.update_scale(kind.message, scale)
    else:
        await client.patch(
            kind.message, name, {"spec": {"replicas": replicas}}, namespace=namespace, subresource="scale"
        )
    click.echo(f"{named(kind, name)} scaled")
