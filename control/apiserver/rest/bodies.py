"""Request bodies to objects: JSON, YAML or protobuf; unknown fields refused, warned of or ignored as asked. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from control.api import errors
from control.api.codec import DecodeError, from_envelope, from_json, parse_json, yaml_documents
from control.api.kinds import Kind
from control.api.scalars import JSON
from control.apiserver.rest.negotiation import PROTOBUF

PATCH_TYPES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}
JSON_TYPES = ("application/json", "", "*/*")
YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml")


class UnsupportedMediaType(errors.ApiError):
    """The body's Content-Type is none that the request takes; the message lists those."""

    code, reason = 415, "UnsupportedMediaType"


@dataclass
class Body:
    """A decoded object and what the client should be warned of."""

    obj: Any
    warnings: list[str] = field(default_factory=list)


def media_type(header: str) -> str:
    """A Content-Type without its parameters."""
    return header.partition(";")[0].strip().lower()


def decode_object(kind: Kind, message: type[Any], data: bytes, content_type: str, validation: str) -> Body:
    """The object of class ``message`` in a body. ``validation``: Strict, Warn (default) or Ignore unknown fields.

    Raises BadRequest naming every bad field, UnsupportedMediaType.
    """
    type_ = media_type(content_type)
    try:
        if type_ == PROTOBUF:
            return Body(_of(message, from_envelope(data, message)))
        unknown: list[tuple[str, str]] = []
        obj = from_json(plain(data, type_), message, unknown=unknown)
    except DecodeError as err:
        raise _unreadable(kind, err.errors) from err
    if unknown and validation == "Strict":
        raise _strict(kind, unknown)
    return Body(obj, [f'unknown field "{path}"' for path, _ in unknown] if validation != "Ignore" else [])


def _of(message: type[Any], obj: Any) -> Any:
    if not isinstance(obj, message):
        raise DecodeError([("kind", f"expected a {message.DESCRIPTOR.name}, got a {obj.DESCRIPTOR.name}")])
    return obj


def plain(data: bytes, type_: str) -> JSON:
    """JSON or YAML text as data. Raises DecodeError, UnsupportedMediaType."""
    if type_ in JSON_TYPES:
        return parse_json(data)
    if type_ in YAML_TYPES or type_ == "application/apply-patch+yaml":
        documents = yaml_documents(data.decode("utf-8", "replace"))
        return documents[0] if documents else None
    raise UnsupportedMediaType(
        "the body of the request was in an unknown format - accepted media types include: "
        f"{', '.join((JSON_TYPES[0], YAML_TYPES[0], PROTOBUF))}"
    )


def decode_patch(data: bytes, content_type: str) -> tuple[str, JSON]:
    """(type, body) of a patch. Raises BadRequest, UnsupportedMediaType."""
    type_ = media_type(content_type)
    if type_ not in PATCH_TYPES:
        raise UnsupportedMediaType(
            f"the body of the request was in an unknown format - accepted media types include: {', '.join(PATCH_TYPES)}"
        )
    try:
        return PATCH_TYPES[type_], plain(data, type_ if type_.endswith("yaml") else "")
    except DecodeError as err:
        raise errors.BadRequest(f"the patch cannot be read: {err}") from err


def _unreadable(kind: Kind, faults: list[tuple[str, str]]) -> errors.BadRequest:
    told = ", ".join(f"{path}: {text}" if path else text for path, text in faults)
    return errors.BadRequest(
        f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {told}',
        errors.about(kind, causes=_causes(faults)),
    )


def _strict(kind: Kind, unknown: list[tuple[str, str]]) -> errors.BadRequest:
    told = ", ".join(f'unknown field "{path}"{text.removeprefix("unknown field")}' for path, text in unknown)
    return errors.BadRequest(
        f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: strict decoding error: {told}',
        errors.about(kind, causes=_causes(unknown)),
    )


def _causes(faults: list[tuple[str, str]]) -> tuple[errors.Cause, ...]:
    return tuple(errors.Cause("FieldValueInvalid", text, path) for path, text in faults)


def is_dry_run(query: Mapping[str, str]) -> bool:
    """Whether ``dryRun=All`` is asked for. Raises BadRequest for another value."""
    value = query.get("dryRun", "")
    if value not in ("", "All"):
        raise errors.BadRequest(f'dryRun: Unsupported value: "{value}": supported values: "All"')
    return value == "All"
