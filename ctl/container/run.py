"""``run``, ``start`` and ``attach``: containers with our streams on theirs."""

import os
from typing import Any

import click

from ctl.container import flags, session
from ctl.container.create import WORDS, create_container, creation_flags
from ctl.container.group import REFUSED, DaemonError, RunCommand, container_command, for_all
from ctl.container.node import Container, Node, choose
from ctl.container.session import Detached
from ctl.errors import Failure, fail

detach_keys = click.option(
    "--detach-keys",
    default="ctrl-p,ctrl-q",
    show_default=True,
    metavar="KEYS",
    help="What leaves the container running.",
)
sig_proxy = click.option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on to the process.")


@container_command("run", REFUSED, RunCommand, context_settings={**WORDS, "help_option_names": ["--help"]})
@click.option("-d", "--detach", is_flag=True, help="Run in the background and print the container's id.")
@click.option(
    "-a", "--attach", "streams", multiple=True, metavar="STREAM", help="Accepted; the foreground has all three."
)
@detach_keys
@sig_proxy
@creation_flags
@click.argument("image")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND] [ARG...]")
async def run(
    node: Node,
    image: str,
    words: tuple[str, ...],
    detach: bool,
    streams: tuple[str, ...],
    detach_keys: str,
    sig_proxy: bool,
    **given: Any,
) -> None:
    """Create and run a container from an image, pulled when it is not here.

    Ends with the program's exit code; 125 when the runtime refuses, 126 when the program cannot be invoked, 127 when
    there is no such program.

    \b
        ctl container run --name web -p 8080:8080 -d kubia
        ctl container run --rm -it busybox sh
    """
    keys = flags.parse_detach_keys(detach_keys)
    require_terminal(given["interactive"] and not detach, given["tty"])
    once = given["interactive"] and not detach
    container = await create_container(node, image, words, given, stdin_once=once, detached=detach)
    if detach:
        await node.start(container)
        click.echo(container.spec.id)
        return
    code = await start_joined(node, container, container.spec.stdin, keys, sig_proxy)
    if code:
        raise Failure(code)


def require_terminal(stdin: bool, tty: bool) -> None:
    """Raises CtlError when a terminal should be joined to our input, and that is none."""
    if stdin and tty and not os.isatty(0):
        fail("the input device is not a TTY")


async def start_joined(node: Node, container: Container, stdin: bool, keys: bytes, proxy: bool) -> int:
    """Start a CREATED container with our streams on it; its exit code, 0 after the detach keys."""
    with node.attached(container):
        url = await session.output_url(node, container)
        await node.start(container)
        try:
            code = await session.foreground(node, container, url, stdin, keys, proxy)
        except Detached:
            return 0
    await node.release(container)
    return code


@container_command("start")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@click.option("-a", "--attach", is_flag=True, help="Join its output, and pass signals on.")
@click.option("-i", "--interactive", is_flag=True, help="Join its input.")
@detach_keys
async def start(node: Node, names: tuple[str, ...], attach: bool, interactive: bool, detach_keys: str) -> None:
    """Start containers that were created, or have stopped.

    CRI starts a container once, so a stopped one goes on as a new attempt: a new pod with the same config, the same
    name, id and writable layer. Its address may be another.
    """
    if attach or interactive:
        if len(names) > 1:
            fail("you cannot start and attach multiple containers at once")
        await _start_one_joined(node, names[0], interactive, flags.parse_detach_keys(detach_keys))
        return

    async def one(name: str) -> None:
        await start_again(node, await find_tidied(node, name))
        click.echo(name)

    await for_all(names, one)


async def _start_one_joined(node: Node, name: str, interactive: bool, keys: bytes) -> None:
    container = await find_tidied(node, name)
    if container.is_running:
        await _attach(node, container, interactive, keys, True)
        return
    container = await node.next_attempt(container)
    if code := await start_joined(node, container, interactive and container.spec.stdin, keys, True):
        raise Failure(code)


async def find_tidied(node: Node, name: str) -> Container:
    """As Node.find, once what has ended has let go of its ports."""
    return choose(await node.tidy(), name)


async def start_again(node: Node, container: Container) -> None:
    """Start a container that does not run; one that runs is fine as it is."""
    if not container.is_running:
        await node.start(await node.next_attempt(container))


@container_command("attach")
@click.argument("name", metavar="CONTAINER")
@click.option("--no-stdin", is_flag=True, help="Do not join STDIN.")
@detach_keys
@sig_proxy
async def attach(node: Node, name: str, no_stdin: bool, detach_keys: str, sig_proxy: bool) -> None:
    """Join our streams to a running container's first process; what it said before is in its logs."""
    container = await node.find(name)
    if not container.is_running:
        raise DaemonError("You cannot attach to a stopped container, start it first")
    require_terminal(container.spec.stdin and not no_stdin, container.spec.tty)
    await _attach(node, container, not no_stdin, flags.parse_detach_keys(detach_keys), sig_proxy)


async def _attach(node: Node, container: Container, stdin: bool, keys: bytes, proxy: bool) -> None:
    with node.attached(container):
        url = await session.output_url(node, container)
        try:
            code = await session.foreground(node, container, url, stdin and container.spec.stdin, keys, proxy)
        except Detached:
            click.echo("read escape sequence", err=True)
            return
    await node.release(container)
    if code:
        raise Failure(code)
