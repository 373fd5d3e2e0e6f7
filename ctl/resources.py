"""What a user means by ``pods``, ``pod/x``, ``rc,svc``, ``all``: kinds and names. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from control.api.kinds import KINDS, Kind, UnknownKind, by_name
from ctl.errors import CtlError


@dataclass(frozen=True)
class Request:
    """Objects of one kind: those named, or all when ``names`` is empty."""

    kind: Kind
    names: tuple[str, ...] = ()


def parse_requests(arguments: Sequence[str]) -> list[Request]:
    """``[po a b]``, ``[po/a svc/b]``, ``[po,svc]``, ``[all]`` as requests. Raises CtlError in kubectl's words."""
    if not arguments:
        raise CtlError("Required resource not specified: name a resource type ('ctl api-resources' lists them)")
    if any("/" in argument for argument in arguments):
        return _pairs(arguments)
    kinds = [kind for word in arguments[0].split(",") for kind in _kinds(word)]
    return [Request(kind, tuple(arguments[1:])) for kind in dict.fromkeys(kinds)]


def _pairs(arguments: Sequence[str]) -> list[Request]:
    requests = []
    for argument in arguments:
        word, slash, name = argument.partition("/")
        if not slash:
            raise CtlError(
                "there is no need to specify a resource type as a separate argument when passing arguments in "
                f"resource/name form (e.g. 'ctl get {arguments[-1]}' instead of 'ctl get {argument} {arguments[-1]}')"
            )
        if not word or not name or "/" in name:
            raise CtlError(f'"{argument}" is not of the form TYPE/NAME')
        requests.append(Request(kind_named(word), (name,)))
    return requests


def _kinds(word: str) -> list[Kind]:
    if word == "all":
        return [kind for kind in KINDS if "all" in kind.categories]
    return [kind_named(word)]


def kind_named(word: str) -> Kind:
    """The kind that ``word`` names. Raises CtlError."""
    try:
        return by_name(word)
    except UnknownKind as err:
        hint = str(err).partition("did you mean ")[2].rstrip("?")
        text = f'the server doesn\'t have a resource type "{word}"'
        raise CtlError(text + (f" (did you mean {hint}?)" if hint else "")) from err


def one_object(arguments: Sequence[str], default: str | None = None) -> tuple[Kind, str]:
    """Exactly one object: ``[pod, x]``, ``[pod/x]`` or, with a ``default`` kind, ``[x]``. Raises CtlError."""
    if default is not None and len(arguments) == 1 and "/" not in arguments[0]:
        return by_name(default), arguments[0]
    requests = parse_requests(arguments)
    if len(requests) != 1 or len(requests[0].names) != 1:
        raise CtlError("name exactly one object, as TYPE NAME or TYPE/NAME")
    return requests[0].kind, requests[0].names[0]


def label_of(kind: Kind) -> str:
    """The singular with its group, as messages have it: ``pod``, ``deployment.apps``."""
    return f"{kind.singular}.{kind.group}" if kind.group else kind.singular


def named(kind: Kind, name: str) -> str:
    """``pod/x``, ``deployment.apps/x``."""
    return f"{label_of(kind)}/{name}"


def full_name(obj: Any) -> str:
    """``named`` of an object."""
    from control.api.kinds import by_message

    return named(by_message(obj), obj.metadata.name)
