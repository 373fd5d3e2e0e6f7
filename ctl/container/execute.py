"""``exec``: one more program in a running container."""

from pathlib import Path
from typing import Any

import click

from ctl.container import flags, session
from ctl.container.group import DaemonError, container_command
from ctl.container.node import Node, code_of_failed_start
from ctl.container.run import detach_keys, require_terminal
from ctl.cri.stream_client import V4, V5, StreamTLS, connected
from ctl.errors import CtlError, Failure, fail
from ctl.terminal import raw_terminal

IN_DIRECTORY = 'cd "$0" && exec "$@"'
IN_BACKGROUND = '"$0" "$@" </dev/null >/dev/null 2>&1 &'


@container_command("exec", context_settings={"allow_interspersed_args": False})
@click.option("-i", "--interactive", is_flag=True, help="Keep STDIN open.")
@click.option("-t", "--tty", is_flag=True, help="Allocate a pseudo-TTY.")
@click.option("-d", "--detach", is_flag=True, help="Run in the background; needs a shell in the image.")
@click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable; needs 'env' in the image.")
@click.option(
    "--env-file", multiple=True, type=click.Path(path_type=Path), metavar="FILE", help="Variables from a file."
)
@click.option("-w", "--workdir", default="", metavar="DIR", help="Working directory; needs a shell in the image.")
@click.option("-u", "--user", default="", help="Not supported: CRI runs commands as the container's user.")
@click.option("--privileged", is_flag=True, help="Not supported: commands have the container's privileges.")
@detach_keys
@click.argument("name", metavar="CONTAINER")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARG...]")
async def exec_(
    node: Node,
    name: str,
    words: tuple[str, ...],
    interactive: bool,
    tty: bool,
    detach: bool,
    user: str,
    privileged: bool,
    detach_keys: str,
    **given: Any,
) -> None:
    """Run a command in a running container, and end with its exit code; 126 and 127 as for run."""
    if user or privileged:
        fail("--user and --privileged are not supported: CRI runs commands as the container itself runs")
    keys = flags.parse_detach_keys(detach_keys)
    require_terminal(interactive and not detach, tty)
    container = await node.find(name)
    if not container.is_running:
        raise DaemonError(f"container {container.spec.id} is not running")
    command = wrapped(list(words), flags.parse_env(given["env"], given["env_file"]), given["workdir"])
    if detach:
        await _in_background(node, container.cri_id, command)
    elif code := await _joined(node, container.cri_id, command, interactive, tty, keys):
        raise Failure(code)


def wrapped(words: list[str], env: list[str], workdir: str) -> list[str]:
    """Pure: the command with variables and a directory, which CRI's exec has no fields for."""
    command = ["env", *env, *words] if env else words
    return ["sh", "-c", IN_DIRECTORY, workdir, *command] if workdir else command


async def _in_background(node: Node, container_id: str, command: list[str]) -> None:
    from protos.cri import runtime_pb2 as pb

    request = pb.ExecSyncRequest(container_id=container_id, cmd=["sh", "-c", IN_BACKGROUND, *command])
    await node.cri.ExecSync(request)


async def _joined(node: Node, container_id: str, command: list[str], stdin: bool, tty: bool, keys: bytes) -> int:
    from protos.cri import runtime_pb2 as pb

    request = pb.ExecRequest(container_id=container_id, cmd=command, tty=tty, stdin=stdin, stdout=True, stderr=not tty)
    url = (await node.cri.Exec(request)).url
    try:
        async with connected(url, (V5, V4), StreamTLS()) as ws:
            senders = [session.send_input(ws, keys if tty else b"")] if stdin else []
            senders += [session.send_sizes(ws)] if tty else []
            with raw_terminal(0 if tty and stdin else -1):
                return await session.until(session.receive(ws), *senders)
    except session.Detached:
        return 0
    except CtlError as err:
        raise _refused(err) from err


def _refused(err: CtlError) -> Exception:
    text = str(err)
    code = code_of_failed_start(text)
    return DaemonError(text, code if code != 125 else 1)
