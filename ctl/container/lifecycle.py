"""``stop``, ``restart``, ``kill``, ``wait``, ``rm`` and ``prune``."""

import asyncio
import signal
from typing import Any

import click

from ctl.container import flags, session
from ctl.container.group import DaemonError, container_command, for_all
from ctl.container.node import START_ERROR, Container, Node, code_of_failed_start
from ctl.container.run import find_tidied, start_again

names_of = click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
grace = click.option("-t", "--time", "--timeout", "seconds", type=int, metavar="SECONDS", help="Grace before SIGKILL.")
with_signal = click.option("-s", "--signal", "name_of_signal", default="", metavar="SIGNAL", help="Signal to send.")


@container_command("stop")
@names_of
@grace
@with_signal
async def stop(node: Node, names: tuple[str, ...], seconds: int | None, name_of_signal: str) -> None:
    """Stop running containers: their stop signal, 10 seconds of grace (--stop-timeout), SIGKILL."""
    number = flags.parse_signal(name_of_signal) if name_of_signal else 0

    async def one(name: str) -> None:
        await _stop(node, await node.find(name), seconds, number)
        click.echo(name)

    await for_all(names, one)


async def _stop(node: Node, container: Container, seconds: int | None, number: int) -> None:
    grace_s = container.spec.stop_timeout_s if seconds is None else seconds
    if number and container.is_running:
        await node.signal(container, number)
        try:
            async with asyncio.timeout(grace_s if grace_s >= 0 else None):
                await exit_code(node, container)
        except TimeoutError:
            pass
        grace_s = 0
    await node.stop(container, grace_s if grace_s >= 0 else 1 << 31)


@container_command("restart")
@names_of
@grace
@with_signal
async def restart(node: Node, names: tuple[str, ...], seconds: int | None, name_of_signal: str) -> None:
    """Stop containers, and start them again as 'start' does."""
    number = flags.parse_signal(name_of_signal) if name_of_signal else 0

    async def one(name: str) -> None:
        container = await node.find(name)
        if container.spec.auto_remove:
            raise DaemonError(f"container {name} was run with --rm: its end removes it, it cannot be restarted")
        await _stop(node, container, seconds, number)
        await start_again(node, await node.find(name))
        click.echo(name)

    await for_all(names, one)


@container_command("kill")
@names_of
@with_signal
async def kill(node: Node, names: tuple[str, ...], name_of_signal: str) -> None:
    """Send a signal to running containers, SIGKILL unless another is named."""
    number = flags.parse_signal(name_of_signal or "KILL")

    async def one(name: str) -> None:
        container = await node.find(name)
        if not container.is_running:
            raise DaemonError(f"cannot kill container: {name}: container {container.spec.id} is not running")
        await (node.stop(container, 0) if number == signal.SIGKILL else node.signal(container, number))
        click.echo(name)

    await for_all(names, one)


@container_command("wait")
@names_of
async def wait(node: Node, names: tuple[str, ...]) -> None:
    """Wait until containers stop, and print their exit codes."""

    async def one(name: str) -> None:
        click.echo(await exit_code(node, await node.find(name)))

    await for_all(names, one)


async def exit_code(node: Node, container: Container) -> int:
    """The exit code of the newest attempt, once there is one; 0 of one that was never started.

    An attached stream ends with the container and its code, so nothing is asked twice.
    """
    import grpc

    from protos.cri import runtime_pb2 as pb

    if not container.is_running:
        return await _code_now(node, container)
    silent = container.spec.tty or not container.spec.stdin  # then asking for input takes it from nobody
    request = pb.AttachRequest(container_id=container.cri_id, stdin=silent, stdout=not silent, tty=container.spec.tty)
    try:
        url = (await node.cri.Attach(request)).url
    except grpc.aio.AioRpcError:
        return await _code_now(node, container)  # it has ended meanwhile
    return await session.code_at_end(url)


async def _code_now(node: Node, container: Container) -> int:
    return shown_code((await node.status(container))[0]) if container.cri_id else 0


def shown_code(status: Any) -> int:
    """Pure: docker's exit code of an exited container: of one that could not start, 126 or 127."""
    if status.reason == START_ERROR:
        return code_of_failed_start(status.message)
    return int(status.exit_code)


@container_command("rm")
@names_of
@click.option("-f", "--force", is_flag=True, help="Kill it first if it runs; no complaint if there is none.")
@click.option("-v", "--volumes", is_flag=True, help="Remove its nameless volumes too.")
async def rm(node: Node, names: tuple[str, ...], force: bool, volumes: bool) -> None:
    """Remove containers."""

    async def one(name: str) -> None:
        try:
            container = await find_tidied(node, name)
        except DaemonError:
            if force:
                return
            raise
        if container.is_running and not force:
            advice = "container is running: stop the container before removing or force remove"
            raise DaemonError(f'cannot remove container "{name}": {advice}')
        await node.remove(container, volumes)
        click.echo(name)

    await for_all(names, one)


@container_command("prune")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
async def prune(node: Node, force: bool) -> None:
    """Remove all containers that do not run."""
    if not force:
        text = "WARNING! This will remove all stopped containers.\nAre you sure you want to continue?"
        click.confirm(text, abort=True, err=True)
    stopped = [container for container in await node.tidy() if not container.is_running]
    if stopped:
        click.echo("Deleted Containers:")
    for container in stopped:
        await node.remove(container, with_volumes=False)
        click.echo(container.spec.id)
