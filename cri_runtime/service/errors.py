"""How errors travel: the whole mapping to gRPC status codes, on one screen. The text is the error's own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from inspect import isasyncgenfunction
from typing import Any, TypeVar

import grpc

from cri_runtime.cgroups.base import CgroupError
from cri_runtime.images.errors import AmbiguousId as AmbiguousImageId
from cri_runtime.images.errors import ImageError, ImageInputError, ImageNotFound
from cri_runtime.network.errors import NetworkError
from cri_runtime.pod import errors
from cri_runtime.pod.events import Lagging
from cri_runtime.service.streaming import TooManyPending

WIRE: dict[type[Exception], grpc.StatusCode] = {
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AmbiguousId: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidConfig: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NameTaken: grpc.StatusCode.ALREADY_EXISTS,
    errors.WrongState: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ExecTimeout: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.StartFailed: grpc.StatusCode.UNKNOWN,
    errors.ResourcesRefused: grpc.StatusCode.INVALID_ARGUMENT,
    errors.SupervisorGone: grpc.StatusCode.UNAVAILABLE,
    errors.ShimFailed: grpc.StatusCode.INTERNAL,
    ImageNotFound: grpc.StatusCode.NOT_FOUND,
    AmbiguousImageId: grpc.StatusCode.INVALID_ARGUMENT,
    ImageInputError: grpc.StatusCode.INVALID_ARGUMENT,
    ImageError: grpc.StatusCode.UNKNOWN,
    NetworkError: grpc.StatusCode.UNKNOWN,
    CgroupError: grpc.StatusCode.INTERNAL,
    TooManyPending: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Lagging: grpc.StatusCode.RESOURCE_EXHAUSTED,
    OSError: grpc.StatusCode.INTERNAL,
}
"""The first class in an error's ancestry decides."""

HANDLED = tuple(WIRE)


def code_of(err: Exception) -> grpc.StatusCode:
    """The status code of an error of the tree."""
    return next(WIRE[kind] for kind in type(err).__mro__ if kind in WIRE)


Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Any] | AsyncIterator[Any]])


def translated(handler: Handler) -> Handler:
    """Decorate an rpc's method: errors of the tree end the call with their code and text."""
    if isasyncgenfunction(handler):

        @wraps(handler)
        async def stream(self: Any, request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            try:
                async for message in handler(self, request, context):
                    yield message
            except HANDLED as err:
                await context.abort(code_of(err), str(err))

        return stream  # type: ignore[return-value]

    @wraps(handler)
    async def unary(self: Any, request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            return await handler(self, request, context)  # type: ignore[misc]
        except HANDLED as err:
            await context.abort(code_of(err), str(err))

    return unary  # type: ignore[return-value]
