"""Interactive streams: the user's terminal on one side, a container's process on the other."""

import asyncio
import sys
from contextlib import aclosing
from typing import Any

import grpc

from control.client import Client
from ctl.errors import CtlError
from ctl.terminal import raw_terminal, read_input, window_sizes, write_all
from protos.k8s import core_v1_pb2 as core
from protos.knarr import stream_pb2 as stream

RUNNING_DEADLINE_S = 60.0
STDIN, STDOUT, STDERR = 0, 1, 2


async def exec_in(client: Client, pod: core.Pod, container: str, command: list[str], stdin: bool, tty: bool) -> int:
    """Run ``command`` in a container, joined to our standard streams; returns its exit code.

    Raises ApiError, and CtlError when the command could not be run.
    """
    start = stream.ExecStart(
        target=_target(pod, container), command=command, stdin=stdin, stdout=True, stderr=not tty, tty=tty
    )
    return await _joined(client, client.exec(), stream.ExecRequest, stream.ExecRequest(start=start), stdin, tty)


async def attach_to(client: Client, pod: core.Pod, container: str, stdin: bool, tty: bool) -> int:
    """Join a container's first process; returns its exit code when it ends. Raises as ``exec_in``."""
    start = stream.AttachStart(target=_target(pod, container), stdin=stdin, stdout=True, stderr=not tty, tty=tty)
    return await _joined(client, client.attach(), stream.AttachRequest, stream.AttachRequest(start=start), stdin, tty)


def _target(pod: core.Pod, container: str) -> stream.ContainerRef:
    return stream.ContainerRef(namespace=pod.metadata.namespace, pod=pod.metadata.name, container=container)


async def _joined(client: Client, call: Any, request: Any, first: Any, stdin: bool, tty: bool) -> int:
    sys.stdout.flush()
    try:
        await call.write(first)
        with raw_terminal(STDIN if tty and stdin else -1):
            return await _until_exit(call, request, stdin, tty)
    except grpc.aio.AioRpcError as err:
        raise client.api_error(err) from err
    except asyncio.InvalidStateError:  # the call ended under a write: its status says why
        raise CtlError(f"the stream ended: {await call.details()}") from None


async def _until_exit(call: Any, request: Any, stdin: bool, tty: bool) -> int:
    senders = [asyncio.create_task(_send_input(call, request))] if stdin else []
    if tty:
        senders.append(asyncio.create_task(_send_sizes(call, request)))
    try:
        async for message in call:
            match message.WhichOneof("message"):
                case "stdout":
                    write_all(STDOUT, message.stdout)
                case "stderr":
                    write_all(STDERR, message.stderr)
                case "exit":
                    return _exit_code(message.exit)
    finally:
        for sender in senders:
            sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)
        call.cancel()
    raise CtlError("the stream ended before the command did")


def _exit_code(ended: stream.Exit) -> int:
    if ended.message:
        raise CtlError(ended.message)
    return int(ended.code)


async def _send_input(call: Any, request: Any) -> None:
    async for chunk in read_input(STDIN):
        await call.write(request(stdin=chunk))
    await call.write(request(stdin_closed=True))


async def _send_sizes(call: Any, request: Any) -> None:
    async for size in window_sizes(STDOUT):
        await call.write(request(resize=stream.TerminalSize(width=size.width, height=size.height)))


async def wait_until_running(client: Client, pod: core.Pod) -> core.Pod:
    """The pod once it runs or has run. Raises CtlError after the deadline."""
    fields = f"metadata.name={pod.metadata.name}"
    watch = client.watch(core.Pod, pod.metadata.namespace, field_selector=fields)
    try:
        async with asyncio.timeout(RUNNING_DEADLINE_S), aclosing(watch) as events:
            async for event in events:
                if event.type != "BOOKMARK" and event.object.status.phase in ("Running", "Succeeded", "Failed"):
                    return event.object
    except TimeoutError:
        pass
    raise CtlError(f"timed out waiting for pod {pod.metadata.name} to run: see 'ctl describe pod {pod.metadata.name}'")
