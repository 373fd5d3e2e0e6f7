"""A CRI runtime for the length of a command, and what its refusals look like to a user."""

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ctl.errors import CtlError

if TYPE_CHECKING:
    from protos.cri.runtime_pb2_grpc import ImageServiceStub, RuntimeServiceStub

DEFAULT_ENDPOINT = "unix:///run/knarr/cri.sock"
Function = Callable[..., Any]
T = TypeVar("T")


class Cri:
    """Both CRI services of one runtime. ``call`` runs one rpc and words its failure."""

    def __init__(self, endpoint: str, channel: Any) -> None:
        from protos.cri import runtime_pb2_grpc

        self.endpoint = endpoint
        self.runtime: RuntimeServiceStub = runtime_pb2_grpc.RuntimeServiceStub(channel)
        self.images: ImageServiceStub = runtime_pb2_grpc.ImageServiceStub(channel)

    async def call(self, rpc: Awaitable[T], what: str) -> T:
        """The answer. Raises CtlError: "what: why", or how to reach a runtime when there is none."""
        import grpc

        try:
            return await rpc
        except grpc.aio.AioRpcError as err:
            raise self.failure(err, what) from err

    def failure(self, err: Any, what: str) -> CtlError:
        """A failed rpc in a sentence."""
        import grpc

        if err.code() == grpc.StatusCode.UNAVAILABLE:
            return CtlError(unreachable(self.endpoint, err.details()))
        if err.code() == grpc.StatusCode.UNIMPLEMENTED:
            return CtlError(f"{what}: the runtime at {self.endpoint} does not offer this: {err.details()}")
        return CtlError(f"{what}: {err.details()}")


def unreachable(endpoint: str, details: str | None) -> str:
    """Why nothing answers at ``endpoint``, and what to do."""
    path = Path(endpoint.removeprefix("unix://"))
    if endpoint.startswith("unix:") and not path.exists():
        details = f"{path} does not exist"
    return (
        f"no container runtime answers at {endpoint} ({details}): start one with 'ctl up', "
        f"or name another with --runtime-endpoint"
    )


def endpoint_of(context: Any) -> str:
    """The endpoint that the command is about: the context's, else $CONTAINER_RUNTIME_ENDPOINT, else knarr's own."""
    chosen = getattr(context, "runtime_endpoint", None)
    return chosen or os.environ.get("CONTAINER_RUNTIME_ENDPOINT") or DEFAULT_ENDPOINT


def cri_command(
    group: click.Group, name: str, **attributes: Any
) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], click.Command]:
    """Make ``async def f(cri, ...)`` a command of ``group``; the runtime's channel is open while it runs."""

    def decorate(function: Callable[..., Coroutine[Any, Any, None]]) -> click.Command:
        @click.pass_obj
        def command(context: Any, /, **values: Any) -> None:
            asyncio.run(_with_runtime(function, endpoint_of(context), values))

        made = click.command(name, **attributes)(functools.update_wrapper(command, function))
        group.add_command(made)
        return made

    return decorate


async def _with_runtime(function: Callable[..., Awaitable[None]], endpoint: str, values: dict[str, Any]) -> None:
    from protos.serving import open_channel

    async with open_channel(endpoint) as channel:
        await function(Cri(endpoint, channel), **values)


async def for_each(items: Iterable[str], work: Callable[[str], Awaitable[None]]) -> None:
    """``work`` on all items at once. Raises CtlError with everything that failed, once all have ended."""
    results = await asyncio.gather(*map(work, items), return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    for failure in failures:
        if not isinstance(failure, CtlError):
            raise failure
    if failures:
        raise CtlError("\n".join(map(str, failures)))
