"""The ``image`` group, and what its commands share: a runtime that answers, and its errors in a sentence."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import click

from ctl.errors import CtlError

if TYPE_CHECKING:
    pass

_ERROR_KEY = "knarr-error"  # cri_runtime/service/image_errors.py


@click.group()
def image() -> None:
    """Build, tag, push, pull and inspect images: docker's verbs, on this node's runtime."""


def image_command(name: str, **attributes: Any) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], click.Command]:
    """Make ``async def f(images, ...)`` a command of the group; ``images`` is the stub of a runtime that runs.

    The state directory's runtime is started when none answers.
    """

    def decorate(function: Callable[..., Coroutine[Any, Any, None]]) -> click.Command:
        @click.pass_obj
        def command(context: Any, /, **values: Any) -> None:
            asyncio.run(_with_images(function, context.ensure_runtime(), values))

        made = click.command(name, **attributes)(functools.update_wrapper(command, function))
        image.add_command(made)
        return made

    return decorate


async def _with_images(function: Callable[..., Coroutine[Any, Any, None]], endpoint: str, values: Any) -> None:
    from protos.knarr.images_pb2_grpc import ImagesStub
    from protos.serving import open_channel

    async with open_channel(endpoint) as channel, worded_errors(endpoint):
        await function(ImagesStub(channel), **values)


@asynccontextmanager
async def worded_errors(endpoint: str = "") -> AsyncIterator[None]:
    """Turn failed rpcs into CtlError: the runtime's own sentence, or how to reach one."""
    import grpc

    try:
        yield
    except grpc.aio.AioRpcError as err:
        ours = any(key == _ERROR_KEY for key, _ in err.trailing_metadata() or ())
        if err.code() == grpc.StatusCode.UNAVAILABLE and not ours:
            from ctl.cri.client import unreachable

            raise CtlError(unreachable(endpoint, err.details())) from err
        raise CtlError(err.details() or str(err.code())) from err


def familiar(name: str) -> str:
    """The short form of a full image name: without ``docker.io/`` and ``library/``."""
    return name.removeprefix("docker.io/").removeprefix("library/")
