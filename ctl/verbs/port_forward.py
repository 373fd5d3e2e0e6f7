"""``ctl port-forward``: local ports whose connections end inside a pod."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import click
import grpc

from control.client import Client
from ctl.command import cluster_command
from ctl.context import Context
from ctl.errors import CtlError
from ctl.generators import check_port
from ctl.pods import pod_named
from ctl.resources import one_object
from protos.k8s import core_v1_pb2 as core
from protos.knarr import stream_pb2 as stream

CHUNK_BYTES = 32 << 10


@dataclass(frozen=True)
class Forward:
    """A local port (0: any free one) and the pod's."""

    local: int
    remote: int


def parse_forward(text: str) -> Forward:
    """``8080``, ``80:8080`` or ``:8080``. Raises CtlError."""
    found = re.fullmatch(r"(?:(\d*):)?(\d+)", text)
    if not found:
        raise CtlError(f'"{text}" is not a port: write REMOTE, LOCAL:REMOTE or :REMOTE')
    remote = check_port(int(found[2]), "the port")
    if found[1] is None:
        return Forward(remote, remote)
    return Forward(check_port(int(found[1]), "the local port") if found[1] else 0, remote)


@cluster_command()
@click.argument("name", metavar="POD|TYPE/NAME")
@click.argument("ports", nargs=-1, required=True, metavar="[LOCAL:]REMOTE...")
@click.option("--address", default="127.0.0.1", show_default=True, help="Where to listen.")
async def port_forward(context: Context, client: Client, name: str, ports: Sequence[str], address: str) -> None:
    """Forward local ports to a pod: 'ctl port-forward POD 8080', 'ctl port-forward svc/web 8000:80'.

    Each connection is a stream of its own, so a pod that goes away ends its connections, not the command: the next
    connection goes to the pod that TYPE/NAME selects then.
    """
    namespace = context.current_namespace()
    forwards = [parse_forward(text) for text in ports]
    await pod_named(client, name, namespace)  # a wrong name is told now, not at the first connection
    async with asyncio.TaskGroup() as tasks:
        for forward in forwards:
            tasks.create_task(_listen(client, name, namespace, address, forward))


async def _listen(client: Client, name: str, namespace: str, address: str, forward: Forward) -> None:
    try:
        handler = partial(_serve, client, name, namespace, forward.remote)
        server = await asyncio.start_server(handler, address, forward.local)
    except OSError as err:
        raise CtlError(f"unable to listen on port {forward.local}: {err.strerror}") from err
    async with server:
        for socket in server.sockets:
            click.echo(f"Forwarding from {address}:{socket.getsockname()[1]} -> {forward.remote}")
        await server.serve_forever()


async def _serve(
    client: Client,
    name: str,
    namespace: str,
    port: int,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """One connection. What goes wrong with it is told and ends only it."""
    click.echo(f"Handling connection for {port}")
    try:
        pod = await pod_named(client, name, namespace)
        target = await _target_port(client, name, namespace, pod, port)
        await _splice(client.port_forward(), pod, target, reader, writer)
    except grpc.aio.AioRpcError as err:
        click.echo(f"error forwarding port {port}: {err.details()}", err=True)
    except (OSError, CtlError, asyncio.InvalidStateError) as err:
        click.echo(f"error forwarding port {port}: {err}", err=True)
    finally:
        writer.close()


async def _target_port(client: Client, name: str, namespace: str, pod: core.Pod, port: int) -> int:
    """The pod's port: for a service, the one that the service's port leads to."""
    kind, object_name = one_object([name], default="pods")
    if kind.kind != "Service":
        return port
    service = await client.get(core.Service, object_name, namespace=namespace)
    for each in service.spec.ports:
        if each.port == port:
            return _resolve(each, pod)
    raise CtlError(f"service {object_name} does not have port {port}")


def _resolve(port: core.ServicePort, pod: core.Pod) -> int:
    if port.targetPort.type == 1:
        named = (each for container in pod.spec.containers for each in container.ports)
        return next((p.containerPort for p in named if p.name == port.targetPort.strVal), port.port)
    return int(port.targetPort.intVal or port.port)


async def _splice(
    call: Any, pod: core.Pod, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    start = stream.PortForwardStart(namespace=pod.metadata.namespace, pod=pod.metadata.name, port=port)
    await call.write(stream.PortForwardRequest(start=start))
    upload = asyncio.create_task(_upload(call, reader))
    try:
        async for message in call:
            writer.write(message.data)
            await writer.drain()
    finally:
        upload.cancel()
        await asyncio.gather(upload, return_exceptions=True)
        call.cancel()


async def _upload(call: Any, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(CHUNK_BYTES):
        await call.write(stream.PortForwardRequest(data=data))
    await call.write(stream.PortForwardRequest(closed=True))
