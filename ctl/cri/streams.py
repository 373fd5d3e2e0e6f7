"""Streams: exec, attach, port-forward."""

import asyncio
import os
import sys
from typing import Any

import click

from ctl.cri import options
from ctl.cri.client import Cri, cri_command
from ctl.cri.group import cri
from ctl.cri.selection import find_containers
from ctl.cri.stream_client import StreamTLS, forward_connection, join_command
from ctl.errors import CtlError, Failure

tls_flags = options.flags(
    click.option("--tls-sni", "--tls-server-name", default="localhost", metavar="NAME", help="Name to check."),
    click.option("--tls-ca", default="", metavar="FILE", help="CA of the streaming server."),
    click.option("--tls-cert", default="", metavar="FILE", help="Our certificate for it."),
    click.option("--tls-key", default="", metavar="FILE", help="Our key for it."),
)
transport = click.option(
    "--transport", type=click.Choice(["websocket"]), default="websocket", help="How streams are carried."
)
tty_flag = click.option("-t", "--tty", is_flag=True, help="Allocate a pseudo-TTY.")


@cri_command(cri, "exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("words", nargs=-1, required=True, metavar="[CONTAINER-ID] COMMAND [ARG...]")
@click.option("-s", "--sync", is_flag=True, help="Run the command synchronously.")
@click.option("--timeout", type=int, default=0, metavar="SECONDS", help="For --sync; 0 is none.")
@tty_flag
@click.option("-i", "--interactive", is_flag=True, help="Keep STDIN open.")
@transport
@options.by_name
@options.by_pod
@options.by_image
@click.option("--state", type=click.Choice(["created", "running", "exited", "unknown"]), help="Filter by state.")
@options.by_label
@options.latest
@options.last
@click.option("-q", "--quiet", is_flag=True, help="Do not print the container ID if several are selected.")
@click.option("-e", "--ignore-errors", is_flag=True, help="Go on when the command fails in one of them.")
@tls_flags
async def exec_(
    cri: Cri,
    words: tuple[str, ...],
    sync: bool,
    timeout: int,
    tty: bool,
    interactive: bool,
    transport: str,
    quiet: bool,
    ignore_errors: bool,
    tls_sni: str,
    tls_ca: str,
    tls_cert: str,
    tls_key: str,
    **filters: Any,
) -> None:
    """Run a command in a running container, and end with its exit code. With filters, in all that match."""
    tls = StreamTLS(tls_ca, tls_cert, tls_key, tls_sni)
    chosen, command = await _targets(cri, words, filters)
    code = 0
    for container_id in chosen:
        if len(chosen) > 1 and not quiet:
            click.echo(f"{container_id}:")
        if sync:
            code = await _exec_sync(cri, container_id, command, timeout)
        else:
            code = await _exec(cri, container_id, command, interactive, tty, tls)
        if code and not ignore_errors:
            raise Failure(code)


async def _targets(cri: Cri, words: tuple[str, ...], filters: dict[str, Any]) -> tuple[list[str], list[str]]:
    if any(filters.values()):
        found = [container.id for container in await find_containers(cri, **filters)]
        if not found:
            raise CtlError("no container matches the filters")
        return found, list(words)
    if len(words) < 2:
        raise CtlError("a container and a command are needed: ctl cri exec CONTAINER-ID COMMAND [ARG...]")
    return [words[0]], list(words[1:])


async def _exec_sync(cri: Cri, container_id: str, command: list[str], timeout_s: int) -> int:
    from protos.cri import runtime_pb2 as pb

    request = pb.ExecSyncRequest(container_id=container_id, cmd=command, timeout=timeout_s)
    answer = await cri.call(cri.runtime.ExecSync(request), f"executing command in container {container_id}")
    sys.stdout.buffer.write(answer.stdout)
    sys.stdout.flush()
    sys.stderr.buffer.write(answer.stderr)
    return answer.exit_code


async def _exec(cri: Cri, container_id: str, command: list[str], stdin: bool, tty: bool, tls: StreamTLS) -> int:
    from protos.cri import runtime_pb2 as pb

    _require_terminal(stdin, tty)
    request = pb.ExecRequest(container_id=container_id, cmd=command, tty=tty, stdin=stdin, stdout=True, stderr=not tty)
    answer = await cri.call(cri.runtime.Exec(request), f"executing command in container {container_id}")
    return await join_command(answer.url, stdin, tty, tls)


def _require_terminal(stdin: bool, tty: bool) -> None:
    if stdin and tty and not os.isatty(0):
        raise CtlError("-t with -i needs a terminal, and standard input is none: leave -t out")


@cri_command(cri, "attach")
@click.argument("container_id", metavar="CONTAINER-ID")
@tty_flag
@click.option("-i", "--stdin", is_flag=True, help="Keep STDIN open.")
@transport
@tls_flags
async def attach(cri: Cri, container_id: str, tty: bool, stdin: bool, transport: str, **tls: str) -> None:
    """Attach to a running container."""
    from protos.cri import runtime_pb2 as pb

    _require_terminal(stdin, tty)
    request = pb.AttachRequest(container_id=container_id, tty=tty, stdin=stdin, stdout=True, stderr=not tty)
    answer = await cri.call(cri.runtime.Attach(request), f"attaching to container {container_id}")
    if code := await join_command(answer.url, stdin, tty, StreamTLS(**tls)):
        raise Failure(code)


@cri_command(cri, "port-forward")
@click.argument("pod_id", metavar="POD-ID")
@click.argument("ports", nargs=-1, required=True, metavar="[LOCAL_PORT:]REMOTE_PORT...")
@transport
@tls_flags
async def port_forward(cri: Cri, pod_id: str, ports: tuple[str, ...], transport: str, **tls: str) -> None:
    """Forward local ports to a pod, until Ctrl-C."""
    trust = StreamTLS(**tls)
    servers = [await _listen(cri, pod_id, *parse_port(port), trust) for port in ports]
    try:
        await asyncio.Event().wait()
    finally:
        for server in servers:
            server.close()


def parse_port(text: str) -> tuple[int, int]:
    """``80`` is (80, 80), ``8080:80`` is (8080, 80), ``:80`` is (0, 80): any free local port. Raises CtlError."""
    local, colon, remote = text.rpartition(":")
    try:
        numbers = (int(local or 0) if colon else int(remote), int(remote))
    except ValueError:
        raise CtlError(f'"{text}" is no port pair: [LOCAL_PORT:]REMOTE_PORT is expected') from None
    if not (0 <= numbers[0] < 65536 and 0 < numbers[1] < 65536):
        raise CtlError(f'"{text}": a port is a number from 1 to 65535')
    return numbers


async def _listen(cri: Cri, pod_id: str, local: int, remote: int, tls: StreamTLS) -> asyncio.Server:
    from protos.cri import runtime_pb2 as pb

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        click.echo(f"Handling connection for {port}")
        try:
            request = pb.PortForwardRequest(pod_sandbox_id=pod_id, port=[remote])
            answer = await cri.call(cri.runtime.PortForward(request), f"forwarding to pod {pod_id}")
            await forward_connection(answer.url, reader, writer, tls)
        except (CtlError, ConnectionError) as err:  # one bad connection is not the end of the others
            click.echo(f"error: {err}", err=True)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", local)
    port = server.sockets[0].getsockname()[1]
    click.echo(f"Forwarding from 127.0.0.1:{port} -> {remote}")
    return server
