"""The ``container`` group, and what its commands share: a node that answers, and failures in docker's words."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import click

from ctl.errors import CtlError, Failure

REFUSED = 125
"""What ``run`` exits with when it was not the container that failed."""


class ContainerGroup(click.Group):
    """Knows docker's second names for commands."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """``ls`` and ``list`` are ``ps``, ``remove`` is ``rm``."""
        return super().get_command(ctx, {"ls": "ps", "list": "ps", "remove": "rm"}.get(cmd_name, cmd_name))


@click.group(cls=ContainerGroup)
def container() -> None:
    """Run containers on this node: docker's verbs, without a control plane.

    A container here is one CRI pod sandbox with one container in it; 'ctl cri pods' shows the same things from below.
    """


class DaemonError(CtlError):
    """The runtime, or we in its place, refuse; ``str()`` is docker's sentence after "Error response from daemon: "."""

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


class Command(click.Command):
    """A command whose usage errors exit with ``usage_code``: docker's habit, 125 for those that start programs."""

    usage_code = 1

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """As click's. Raises Failure after saying what is wrong."""
        try:
            return super().make_context(*args, **kwargs)
        except (click.UsageError, CtlError) as err:
            text = err.format_message().removesuffix(".") if isinstance(err, click.UsageError) else str(err)
            click.echo(f"error: {text}\nSee 'ctl container {self.name} --help'", err=True)
            raise Failure(self.usage_code) from err


class RunCommand(Command):
    """See Command."""

    usage_code = REFUSED


def container_command(
    name: str, fails_with: int = 1, cls: type[click.Command] = Command, **attributes: Any
) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], click.Command]:
    """Make ``async def f(node, ...)`` a command of the group; the node's runtime runs, or is started.

    What the runtime refuses is printed as docker does and ends with ``fails_with``, unless the refusal has its code.
    """

    def decorate(function: Callable[..., Coroutine[Any, Any, None]]) -> click.Command:
        @click.pass_obj
        def command(context: Any, /, **values: Any) -> None:
            endpoint = context.ensure_runtime()
            try:
                asyncio.run(_with_node(function, endpoint, context.layout, values))
            except DaemonError as err:
                click.echo(f"Error response from daemon: {err}", err=True)
                raise Failure(err.code or fails_with) from err
            except CtlError as err:
                click.echo(f"error: {err}", err=True)
                raise Failure(fails_with) from err

        made = click.command(name, cls=cls, **attributes)(functools.update_wrapper(command, function))
        container.add_command(made)
        return made

    return decorate


async def _with_node(
    function: Callable[..., Coroutine[Any, Any, None]], endpoint: str, layout: Any, values: Any
) -> None:
    from ctl.container.node import Node
    from protos.serving import open_channel

    async with open_channel(endpoint) as channel, worded_errors(endpoint):
        await function(Node(endpoint, channel, layout), **values)


@asynccontextmanager
async def worded_errors(endpoint: str = "") -> AsyncIterator[None]:
    """Turn failed rpcs into DaemonError with the runtime's own sentence, or say how to reach a runtime."""
    import grpc

    try:
        yield
    except grpc.aio.AioRpcError as err:
        if err.code() == grpc.StatusCode.UNAVAILABLE:
            from ctl.cri.client import unreachable

            raise CtlError(unreachable(endpoint, err.details())) from err
        raise DaemonError(err.details() or str(err.code())) from err


async def for_all(names: tuple[str, ...], work: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    """``work`` on each name, in order; those that fail are told and do not stop the rest. Raises Failure(1) then."""
    failed = False
    for name in names:
        try:
            async with worded_errors():
                await work(name)
        except DaemonError as err:
            click.echo(f"Error response from daemon: {err}", err=True)
            failed = True
    if failed:
        raise Failure(1)
