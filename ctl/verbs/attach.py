"""``ctl attach``: join the streams of a container's first process."""

import click

from control.client import Client
from ctl.command import cluster_command
from ctl.context import Context
from ctl.errors import Failure
from ctl.pods import container_of, pod_named
from ctl.streams import attach_to


@cluster_command()
@click.argument("pod_name", metavar="POD|TYPE/NAME")
@click.option("-i", "--stdin", is_flag=True, help="Pass our input on.")
@click.option("-t", "--tty", is_flag=True, help="The process has a terminal.")
@click.option("-c", "--container", default="", help="Default the pod's default container, or its first.")
async def attach(context: Context, client: Client, pod_name: str, stdin: bool, tty: bool, container: str) -> None:
    """Join a running container: its output from now on, and with -i its input."""
    pod = await pod_named(client, pod_name, context.current_namespace())
    code = await attach_to(client, pod, container_of(pod, container), stdin, tty)
    if code:
        raise Failure(code)
