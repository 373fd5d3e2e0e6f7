"""gRPC failures to ApiErrors: the Status in the details when the server sent one, else by the gRPC code."""

import grpc
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status as RpcStatus

from control.api import errors
from control.api.status import from_status
from protos.k8s.meta_v1_pb2 import Status

DETAILS = "grpc-status-details-bin"

BY_CODE: dict[grpc.StatusCode, type[errors.ApiError]] = {
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.ABORTED: errors.Conflict,
    grpc.StatusCode.INVALID_ARGUMENT: errors.BadRequest,
    grpc.StatusCode.PERMISSION_DENIED: errors.Forbidden,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthorized,
    grpc.StatusCode.OUT_OF_RANGE: errors.Expired,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.TooManyRequests,
    grpc.StatusCode.UNIMPLEMENTED: errors.NotImplementedYet,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.Timeout,
    grpc.StatusCode.CANCELLED: errors.Unavailable,
}


def to_api_error(err: grpc.aio.AioRpcError, server: str) -> errors.ApiError:
    """The ApiError of a failed call to ``server``."""
    status = _status(err)
    if status is not None:
        return from_status(status)
    if err.code() is grpc.StatusCode.UNAVAILABLE:
        return errors.Unavailable(f"the apiserver at {server} cannot be reached: {err.details()}")
    if err.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.Timeout(f"the apiserver at {server} did not answer in time; a write may have happened")
    return BY_CODE.get(err.code(), errors.InternalError)(err.details() or err.code().name)


def _status(err: grpc.aio.AioRpcError) -> Status | None:
    for name, value in err.trailing_metadata() or ():
        if name == DETAILS:
            return _unpacked(value)
    return None


def _unpacked(value: bytes) -> Status | None:
    try:
        status = Status()
        found = any(detail.Unpack(status) for detail in RpcStatus.FromString(value).details)
    except DecodeError:
        return None
    return status if found else None
