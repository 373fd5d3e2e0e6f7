"""Errors as Kubernetes' Status message, and back. Every door of the server speaks it, and so does the client."""

from control.api.errors import ApiError, Cause, Details, InternalError
from protos.k8s.meta_v1_pb2 import Status, StatusCause


def to_status(err: ApiError) -> Status:
    """The Status that tells ``err``."""
    details, status = err.details, Status(status="Failure", message=err.message, reason=err.reason, code=err.code)
    if details != Details():
        status.details.name, status.details.group = details.name, details.group
        status.details.kind, status.details.uid = details.kind, details.uid
        status.details.retryAfterSeconds = details.retry_after_seconds
        status.details.causes.extend(
            StatusCause(reason=cause.reason, message=cause.message, field=cause.field) for cause in details.causes
        )
    return status


def from_status(status: Status) -> ApiError:
    """The error that a Status tells; an unknown reason is an InternalError with that reason's text."""
    told = status.details
    causes = tuple(Cause(cause.reason, cause.message, cause.field) for cause in told.causes)
    details = Details(told.name, told.group, told.kind, told.uid, causes, told.retryAfterSeconds)
    return ApiError.subclasses.get(status.reason, InternalError)(status.message, details)
