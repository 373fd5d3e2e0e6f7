"""What can go wrong with a request: Kubernetes' reasons, one class each, the same for server and client.

ApiError
├── BadRequest          400  we could not read it
├── Unauthorized        401  who are you?
├── Forbidden           403  not you, or not now
├── NotFound            404
├── MethodNotAllowed    405  the kind does not have this verb
├── AlreadyExists       409  on create
├── Conflict            409  changed meanwhile, or a precondition failed: read again and retry
├── Expired             410  the resource version is too old: list again
├── Invalid             422  read, understood, and wrong; ``causes`` name the fields
├── TooManyRequests     429  a disruption budget says not now: retry later
├── InternalError       500
├── NotImplementedYet   501  a verb this version does not have
├── Unavailable         503  the server or its store cannot be reached: retry
└── Timeout             504  not in time; it may have happened

No gRPC and no HTTP here: control/apiserver/wire.py and control/client/wire.py hold the tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from control.api.kinds import Kind


@dataclass(frozen=True)
class Cause:
    """One reason of an Invalid or BadRequest: which field, what is wrong."""

    reason: str
    message: str
    field: str = ""


@dataclass(frozen=True)
class Details:
    """Which object an error is about. ``kind`` is the plural, for Invalid the kind, as in Kubernetes."""

    name: str = ""
    group: str = ""
    kind: str = ""
    uid: str = ""
    causes: tuple[Cause, ...] = field(default=())
    retry_after_seconds: int = 0


class ApiError(Exception):
    """Base of all. ``code`` is the HTTP status, ``reason`` Kubernetes' word, ``details`` names the object."""

    code: int = 500
    reason: str = "InternalError"
    subclasses: ClassVar[dict[str, type["ApiError"]]] = {}

    def __init__(self, message: str, details: Details | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details or Details()

    def __init_subclass__(cls) -> None:
        ApiError.subclasses.setdefault(cls.reason, cls)


class BadRequest(ApiError):
    """The request cannot be read: an unknown field, a wrong type, a selector that does not parse."""

    code, reason = 400, "BadRequest"


class Unauthorized(ApiError):
    """No identity, or one that this cluster's CA did not sign."""

    code, reason = 401, "Unauthorized"


class Forbidden(ApiError):
    """The identity may not do this, or the object's state does not allow it."""

    code, reason = 403, "Forbidden"


class NotFound(ApiError):
    """No such object."""

    code, reason = 404, "NotFound"


class MethodNotAllowed(ApiError):
    """The kind does not have this verb or subresource."""

    code, reason = 405, "MethodNotAllowed"


class AlreadyExists(ApiError):
    """An object of this name is there already."""

    code, reason = 409, "AlreadyExists"


class Conflict(ApiError):
    """The object changed since it was read, or a precondition does not hold. Read it again and retry."""

    code, reason = 409, "Conflict"


class Expired(ApiError):
    """The resource version is too old to continue from. List again."""

    code, reason = 410, "Expired"


class Invalid(ApiError):
    """The object breaks its kind's rules; ``details.causes`` has one entry per field."""

    code, reason = 422, "Invalid"


class TooManyRequests(ApiError):
    """Not now; ``details.retry_after_seconds`` says when."""

    code, reason = 429, "TooManyRequests"


class InternalError(ApiError):
    """The server failed; its log knows more."""

    code, reason = 500, "InternalError"


class NotImplementedYet(ApiError):
    """This version of the server does not have the verb."""

    code, reason = 501, "NotImplemented"


class Unavailable(ApiError):
    """The server, or its store, cannot be reached. Retry."""

    code, reason = 503, "ServiceUnavailable"


class Timeout(ApiError):
    """No answer in time; a write may or may not have happened."""

    code, reason = 504, "Timeout"


def about(kind: Kind, name: str = "", causes: Sequence[Cause] = ()) -> Details:
    """Details naming an object by its plural."""
    return Details(name=name, group=kind.group, kind=kind.plural, causes=tuple(causes))


def not_found(kind: Kind, name: str) -> NotFound:
    """``pods "x" not found``."""
    return NotFound(f'{kind.resource} "{name}" not found', about(kind, name))


def already_exists(kind: Kind, name: str) -> AlreadyExists:
    """``pods "x" already exists``."""
    return AlreadyExists(f'{kind.resource} "{name}" already exists', about(kind, name))


def conflict(kind: Kind, name: str, why: str) -> Conflict:
    """``Operation cannot be fulfilled on pods "x": why``."""
    return Conflict(f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}', about(kind, name))


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"
"""Why a stale write is refused. Clients match on it."""


def forbidden(kind: Kind, name: str, why: str) -> Forbidden:
    """``pods "x" is forbidden: why``."""
    return Forbidden(f'{kind.resource} "{name}" is forbidden: {why}', about(kind, name))


def invalid(kind: Kind, name: str, causes: Sequence[Cause]) -> Invalid:
    """``Pod "x" is invalid: spec.containers: Required value``; several in brackets."""
    texts = list(dict.fromkeys(f"{cause.field}: {cause.message}" for cause in causes))
    told = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    details = Details(name=name, group=kind.group, kind=kind.kind, causes=tuple(causes))
    return Invalid(f'{kind.kind} "{name}" is invalid: {told}', details)
