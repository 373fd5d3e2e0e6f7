"""Protobuf object to Kubernetes JSON, field by field as fields.tsv tells it."""

import base64
from typing import Any

from google.protobuf.message import Message

from control.api.fields import Field, fields_of
from control.api.kinds import type_name
from control.api.scalars import ENCODE, JSON


def to_json(message: Message) -> dict[str, JSON]:
    """The JSON object of ``message``: apiVersion and kind first when its type has them, then the fields in Go's order.

    What Go leaves out when empty is left out; what Go always writes is written, as null, "", 0, false or {}.
    Raises ValueError for a value that has no JSON form (a year past 9999, a quantity that is none).
    """
    named = type_name(message)
    head = {"apiVersion": named[0], "kind": named[1]} if named else {}
    return {**head, **encode(message)}


def encode(message: Any) -> Any:
    """The JSON value of a message, without apiVersion and kind."""
    facts = fields_of(message.DESCRIPTOR)
    if facts.special:
        return ENCODE[facts.special](message)
    result: dict[str, JSON] = {}
    for field in facts.ordered:
        if field.inline:
            result.update(encode(getattr(message, field.name)))
        else:
            _add(result, field, message)
    return result


def _add(result: dict[str, JSON], field: Field, message: Any) -> None:
    if field.repeated or field.map:
        _add_many(result, field, getattr(message, field.name))
    elif field.presence == "pointer" and not message.HasField(field.name):
        if field.omit == "no":
            result[field.json] = None
    else:
        _add_one(result, field, getattr(message, field.name))


def _add_many(result: dict[str, JSON], field: Field, values: Any) -> None:
    if not values:
        if field.omit == "no":
            result[field.json] = [] if field.json == "items" else None
    elif field.map:
        result[field.json] = {key: _value(field, values[key]) for key in sorted(values)}
    else:
        result[field.json] = [_value(field, value) for value in values]


def _add_one(result: dict[str, JSON], field: Field, value: Any) -> None:
    encoded = _value(field, value)
    if field.presence != "pointer" and _left_out(field, encoded):
        return
    result[field.json] = encoded


def _left_out(field: Field, encoded: JSON) -> bool:
    """Go's omitempty skips zero scalars but never structs; omitzero skips both."""
    if field.omit == "zero":
        return not encoded
    return field.omit == "empty" and not field.message and not encoded


def _value(field: Field, value: Any) -> JSON:
    if field.message:
        return encode(value)
    return base64.b64encode(value).decode() if field.scalar == "bytes" else value
