"""``ctl cordon`` and ``ctl uncordon``: whether the scheduler may use a node."""

from collections.abc import Sequence

import click

from control.client import Client
from ctl.command import cluster_command
from ctl.context import Context
from protos.k8s import core_v1_pb2 as core


async def _set(client: Client, nodes: Sequence[str], unschedulable: bool) -> None:
    word = "cordoned" if unschedulable else "uncordoned"
    for name in nodes:
        node = await client.get(core.Node, name.removeprefix("node/"))
        if node.spec.unschedulable == unschedulable:
            click.echo(f"node/{node.metadata.name} already {word}")
            continue
        await client.patch(core.Node, node.metadata.name, {"spec": {"unschedulable": unschedulable or None}})
        click.echo(f"node/{node.metadata.name} {word}")


@cluster_command()
@click.argument("nodes", nargs=-1, required=True)
async def cordon(context: Context, client: Client, nodes: Sequence[str]) -> None:
    """Mark nodes as unschedulable: no new pods; those there stay."""
    await _set(client, nodes, True)


@cluster_command()
@click.argument("nodes", nargs=-1, required=True)
async def uncordon(context: Context, client: Client, nodes: Sequence[str]) -> None:
    """Mark nodes as schedulable again."""
    await _set(client, nodes, False)
