"""How errors of images and builds travel: the whole mapping on one screen.

CRI clients keep only the text of code UNKNOWN, and look for ``RegistryUnavailable`` at its beginning.
"""

import errno
import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import grpc

from cri_runtime.images import errors

_WIRE: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (errors.ImageNotFound, grpc.StatusCode.NOT_FOUND),
    (errors.AmbiguousId, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.ImageInUse, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.ImageInputError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.ContentMismatch, grpc.StatusCode.DATA_LOSS),
    (errors.BlobNotFound, grpc.StatusCode.DATA_LOSS),
    (errors.RegistryUnavailable, grpc.StatusCode.UNAVAILABLE),
    (errors.RegistryDenied, grpc.StatusCode.PERMISSION_DENIED),
    (errors.NotInRegistry, grpc.StatusCode.NOT_FOUND),
    (errors.RegistryError, grpc.StatusCode.UNKNOWN),
)
ERROR_KEY = "knarr-error"
"""Trailing metadata with the error's class: an answer of ours, not of a broken connection."""
_UNAVAILABLE_PREFIX = "RegistryUnavailable: "

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])


def status_of(err: Exception) -> tuple[grpc.StatusCode, str]:
    """Code and text of an error of this room."""
    if isinstance(err, OSError):
        full = err.errno in (errno.ENOSPC, errno.EDQUOT)
        text = "the disk of the image store is full: free some space, or run ctl image prune" if full else str(err)
        return (grpc.StatusCode.RESOURCE_EXHAUSTED if full else grpc.StatusCode.INTERNAL), text
    return next(code for kind, code in _WIRE if isinstance(err, kind)), str(err)


def answers(handler: F) -> F:
    """Decorate an rpc of our own image service."""
    return _answers(handler, cri=False)


def answers_cri(handler: F) -> F:
    """Decorate a CRI rpc: a registry that is down is code UNKNOWN with the prefix that the kubelet knows."""
    return _answers(handler, cri=True)


def _answers(handler: F, cri: bool) -> F:
    @functools.wraps(handler)
    async def answer(self: Any, request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            return await handler(self, request, context)
        except (errors.ImageError, OSError) as err:
            code, text = status_of(err)
            if cri and isinstance(err, errors.RegistryUnavailable):
                code, text = grpc.StatusCode.UNKNOWN, _UNAVAILABLE_PREFIX + text
            context.set_trailing_metadata(((ERROR_KEY, type(err).__name__),))
            await context.abort(code, text)

    return cast(F, answer)
