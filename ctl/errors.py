"""What a user reads when a command fails, in kubectl's words, and the exit code.

usage error (click)          error: ...                               1
answer of the apiserver      Error from server (NotFound): ...        1
no apiserver there           The connection to the server ...         1
CtlError and the room's own  error: ...                               1
a command's own exit code    (nothing)                                that code
"""

import asyncio
import sys
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from control.api.errors import Invalid


class CtlError(Exception):
    """Base of what ctl itself finds wrong; ``str()`` is the sentence after ``error: ``."""


class Failure(Exception):
    """Something is already said; only the exit code is left."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


def fail(text: str) -> NoReturn:
    """Raise CtlError(text)."""
    raise CtlError(text)


def report(err: BaseException) -> int:
    """Print what went wrong on stderr and give the exit code. Raises ``err`` again when it is a bug."""
    if isinstance(err, SystemExit):
        return err.code if isinstance(err.code, int) else _say(str(err.code or ""))
    if isinstance(err, Failure):
        return err.code
    if isinstance(err, (KeyboardInterrupt, click.Abort, asyncio.CancelledError)):
        return 130
    if isinstance(err, BrokenPipeError):
        return _silence_stdout()
    if isinstance(err, BaseExceptionGroup) and len(err.exceptions) == 1:
        return report(err.exceptions[0])
    text = explain(err)
    if text is None:
        raise err
    return _say(text)


def explain(err: BaseException) -> str | None:
    """The text for ``err``; None when it is not a failure that a user can act on."""
    if isinstance(err, click.UsageError):
        return _usage(err)
    if isinstance(err, click.ClickException):
        return f"error: {err.format_message()}"
    if isinstance(err, CtlError):
        return f"error: {err}"
    for rule in (_from_server, _from_grpc, _from_system):
        if (text := rule(err)) is not None:
            return text
    return None


def _usage(err: click.UsageError) -> str:
    text = f"error: {err.format_message().removesuffix('.')}"
    if err.ctx is not None:
        text += f"\nSee '{err.ctx.command_path} -h' for help and examples"
    return text


def _from_server(err: BaseException) -> str | None:
    if "control.api.errors" not in sys.modules:
        return None
    from control.api import errors

    if isinstance(err, errors.Unavailable):
        return f"Unable to connect to the server: {err}\n'ctl status' shows what runs, 'ctl up' starts what is missing."
    if isinstance(err, errors.Unauthorized):
        return "error: You must be logged in to the server (Unauthorized)"
    if isinstance(err, errors.Invalid) and (text := _field_errors(err)):
        return text
    if isinstance(err, errors.ApiError):
        return f"Error from server ({err.reason or 'Unknown'}): {err.message}"
    return None


def _field_errors(err: "Invalid") -> str:
    """As kubectl: ``The Pod "x" is invalid: spec.containers: Required value``, a list when several."""
    details = err.details
    causes = [cause for cause in details.causes if cause.field]
    if not causes:
        return ""
    head = f'The {details.kind} "{details.name}" is invalid' if details.name else f"The {details.kind} is invalid"
    if len(causes) == 1:
        return f"{head}: {causes[0].field}: {causes[0].message}"
    return "\n".join([f"{head}: ", *(f"* {cause.field}: {cause.message}" for cause in causes)])


def _from_grpc(err: BaseException) -> str | None:
    if "grpc" not in sys.modules:
        return None
    import grpc

    if not isinstance(err, grpc.RpcError):
        return None
    code = err.code() if hasattr(err, "code") else None
    details = err.details() if hasattr(err, "details") else str(err)
    if code == grpc.StatusCode.UNAVAILABLE:
        return f"error: nothing answers there: {details}\n'ctl status' shows the cluster, 'ctl up' starts it."
    return f"error: {details}"


def _from_system(err: BaseException) -> str | None:
    """Not only OSError: text that a room refuses (a selector, a manifest, a kind) is a ValueError of that room."""
    if isinstance(err, PermissionError) and err.filename:
        return f"error: you may not use {err.filename}: use sudo"
    if isinstance(err, OSError):
        return f"error: {err}"
    refused = ("control.api", "control.client.config", "raftstore.errors")
    if isinstance(err, (ValueError, LookupError)) and type(err).__module__.startswith(refused):
        return f"error: {err}"
    return None


def _say(text: str) -> int:
    if text:
        print(text, file=sys.stderr)
    return 1


def _silence_stdout() -> int:
    """The reader has gone (``ctl get pods | head -1``): nothing more may be written, at exit either."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 1
