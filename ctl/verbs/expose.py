"""``ctl expose``: a service for what a controller, pod or service selects."""

from collections.abc import Sequence

import click

from control.client import Client
from ctl.command import cluster_command, dry_run, output
from ctl.context import Context
from ctl.generators import SERVICE_TYPES, parse_pairs, service
from ctl.manifests import place
from ctl.output import dry_run_note, echo_objects, parse_output
from ctl.resources import one_object


@cluster_command()
@click.argument("words", nargs=-1, required=True, metavar="TYPE NAME")
@click.option("--name", default="", help="The service's name; default the object's.")
@click.option("--type", "type_", type=click.Choice(SERVICE_TYPES), help="Default ClusterIP.")
@click.option(
    "--port", "ports", type=int, multiple=True, metavar="N", help="Port of the service; default the object's."
)
@click.option("--target-port", default="", metavar="PORT", help="Number or name in the pod; default the same port.")
@click.option("--protocol", type=click.Choice(["TCP", "UDP", "SCTP"]), help="Default TCP.")
@click.option("--selector", "selector", default="", metavar="KEY=VALUE,...", help="Default the object's own.")
@click.option("-l", "--labels", multiple=True, metavar="KEY=VALUE", help="Labels of the service; default the object's.")
@dry_run
@output()
async def expose(
    context: Context,
    client: Client,
    words: Sequence[str],
    name: str,
    type_: str | None,
    ports: Sequence[int],
    target_port: str,
    protocol: str | None,
    selector: str,
    labels: Sequence[str],
    dry_run: str,
    output_format: str,
) -> None:
    """Make a service: 'ctl expose rc kubia --type=LoadBalancer --name=kubia-http'."""
    kind, object_name = one_object(words)
    namespace = context.current_namespace()
    obj = await client.get(kind.message, object_name, namespace=namespace if kind.namespaced else "")
    made = service(
        obj,
        name or object_name,
        type_ or "",
        ports,
        target_port,
        protocol or "",
        parse_pairs([selector], "--selector") if selector else None,
        parse_pairs(labels, "--labels") or None,
    )
    place(made, namespace, context.namespace is not None)
    stored = made if dry_run == "client" else await client.create(made, dry_run=dry_run == "server")
    click.echo(echo_objects(parse_output(output_format), [stored], "exposed", dry_run_note(dry_run)), nl=False)
