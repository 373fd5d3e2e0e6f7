"""``ctl run``: an image, replicated by a ReplicationController or as one pod."""

from collections.abc import Sequence
from typing import Any

import click

from control.client import Client
from ctl.command import cluster_command, dry_run, output
from ctl.context import Context
from ctl.errors import CtlError, Failure
from ctl.generators import check_name, container, parse_pairs, pod, replication_controller
from ctl.manifests import place
from ctl.output import dry_run_note, echo_objects, parse_output


@cluster_command()
@click.argument("name")
@click.argument("arguments", nargs=-1, metavar="[-- ARGUMENT...]")
@click.option("--image", required=True, metavar="IMAGE", help="What to run.")
@click.option("--port", type=int, metavar="N", help="The port that the container serves on.")
@click.option("--replicas", type=int, default=1, show_default=True, metavar="N", help="How many pods.")
@click.option("--restart", type=click.Choice(["Always", "OnFailure", "Never"]), default="Always", show_default=True)
@click.option("--env", multiple=True, metavar="KEY=VALUE", help="A variable of the container's environment.")
@click.option("--labels", multiple=True, metavar="KEY=VALUE", help="Labels instead of run=NAME.")
@click.option("--command", "as_command", is_flag=True, help="ARGUMENTS replace the image's entrypoint.")
@click.option("--image-pull-policy", "pull_policy", type=click.Choice(["Always", "IfNotPresent", "Never"]))
@click.option("-i", "--stdin", "interactive", is_flag=True, help="Keep the container's input open, and attach to it.")
@click.option("-t", "--tty", is_flag=True, help="Give the container a terminal.")
@click.option("--rm", "remove", is_flag=True, help="With -i: delete the pod afterwards; its exit code becomes ours.")
@dry_run
@output()
async def run(
    context: Context,
    client: Client,
    name: str,
    arguments: Sequence[str],
    image: str,
    port: int | None,
    replicas: int,
    restart: str,
    env: Sequence[str],
    labels: Sequence[str],
    as_command: bool,
    pull_policy: str | None,
    interactive: bool,
    tty: bool,
    remove: bool,
    dry_run: str,
    output_format: str,
) -> None:
    """Run IMAGE as a ReplicationController, which keeps --replicas pods alive; with --restart=Never or OnFailure, or
    with -i, as one pod. Words after -- are the container's arguments."""
    single = restart != "Always" or interactive or tty
    check_name(name, "pod" if single else "replicationcontroller")
    made = container(
        name, image, port, parse_pairs(env, "--env"), arguments, as_command, pull_policy or "", interactive, tty
    )
    marks = parse_pairs(labels, "--labels")
    if single and replicas != 1:
        raise CtlError("--replicas needs --restart=Always and no terminal: one pod is what those make")
    obj: Any = pod(name, made, restart, marks) if single else replication_controller(name, made, replicas, marks)
    place(obj, context.current_namespace(), context.namespace is not None)
    stored = obj if dry_run == "client" else await client.create(obj, dry_run=dry_run == "server")
    if interactive and dry_run == "none":
        await _attach(client, stored, tty, remove)
        return
    click.echo(echo_objects(parse_output(output_format), [stored], "created", dry_run_note(dry_run)), nl=False)


async def _attach(client: Client, stored: Any, tty: bool, remove: bool) -> None:
    from ctl.streams import attach_to, wait_until_running

    try:
        running = await wait_until_running(client, stored)
        code = await attach_to(client, running, stored.spec.containers[0].name, stdin=True, tty=tty)
    finally:
        if remove:
            await client.delete(type(stored), stored.metadata.name, namespace=stored.metadata.namespace)
            click.echo(f'pod "{stored.metadata.name}" deleted')
    if code:
        raise Failure(code)
