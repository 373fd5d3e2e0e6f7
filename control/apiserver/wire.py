"""ApiErrors on the wire: the whole mapping on one screen. The Status travels in ``grpc-status-details-bin``."""

import logging
from typing import NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.status_pb2 import Status as RpcStatus

from control.api import errors
from control.api.status import to_status

log = logging.getLogger(__name__)

DETAILS = "grpc-status-details-bin"
DETAILS_BYTES_MAX = 4000
"""gRPC peers accept some 8 KiB of trailers in all, base64 included."""

CODES: dict[type[errors.ApiError], grpc.StatusCode] = {
    errors.BadRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthorized: grpc.StatusCode.UNAUTHENTICATED,
    errors.Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.MethodNotAllowed: grpc.StatusCode.UNIMPLEMENTED,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.Conflict: grpc.StatusCode.ABORTED,
    errors.Expired: grpc.StatusCode.OUT_OF_RANGE,
    errors.Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    errors.TooManyRequests: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.InternalError: grpc.StatusCode.INTERNAL,
    errors.NotImplementedYet: grpc.StatusCode.UNIMPLEMENTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.Timeout: grpc.StatusCode.DEADLINE_EXCEEDED,
}


async def abort(context: grpc.aio.ServicerContext, err: errors.ApiError) -> NoReturn:
    """End the call with ``err``."""
    code = CODES.get(type(err), grpc.StatusCode.INTERNAL)
    context.set_trailing_metadata(((DETAILS, details_of(err, code)),))
    await context.abort(code, err.message[:1000])
    raise AssertionError("abort returned")


def details_of(err: errors.ApiError, code: grpc.StatusCode) -> bytes:
    """The google.rpc.Status that carries the Status of ``err``, with as many causes as fit."""
    status = to_status(err)
    while len(status.details.causes) > 1 and status.ByteSize() > DETAILS_BYTES_MAX:
        del status.details.causes[-1]
    if status.ByteSize() > DETAILS_BYTES_MAX:
        status.message = status.message[:1000] + " ..."
    packed = AnyMessage()
    packed.Pack(status)
    return RpcStatus(code=code.value[0], message=status.message, details=[packed]).SerializeToString()
