"""``ctl exec``: run a command in a container."""

from collections.abc import Sequence

import click

from control.client import Client
from ctl.command import cluster_command
from ctl.context import Context
from ctl.errors import CtlError, Failure
from ctl.pods import container_of, pod_named
from ctl.streams import exec_in


@cluster_command("exec")
@click.option("-i", "--stdin", is_flag=True, help="Pass our input on.")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
@click.option("-c", "--container", default="", help="Default the pod's default container, or its first.")
@click.argument("pod_name", metavar="POD|TYPE/NAME")
@click.argument("words", nargs=-1, metavar="-- COMMAND [ARG...]")
async def exec_(
    context: Context, client: Client, pod_name: str, words: Sequence[str], stdin: bool, tty: bool, container: str
) -> None:
    """Run a command in a container: 'ctl exec POD -- ls /', 'ctl exec -it POD -- sh'. Exit code: the command's."""
    if not words:
        raise CtlError("you must specify at least one command for the container")
    pod = await pod_named(client, pod_name, context.current_namespace())
    if pod.status.phase in ("Succeeded", "Failed"):
        raise CtlError(f"cannot exec into a container in a completed pod; current phase is {pod.status.phase}")
    code = await exec_in(client, pod, container_of(pod, container), list(words), stdin, tty)
    if code:
        click.echo(f"command terminated with exit code {code}", err=True)
        raise Failure(code)
