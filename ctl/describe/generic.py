"""Any other kind: its fields with their names spelled out, as kubectl does for kinds it does not know."""

import re
from collections.abc import Sequence
from typing import Any

from ctl.describe.parts import Lines, events, head, indented
from ctl.jsonpath import show


def describe_generic(obj: Any, data: dict[str, Any], found_events: Sequence[Any] | None, now_s: float) -> Lines:
    """``data`` is the object's JSON."""
    metadata = {key: value for key, value in data.get("metadata", {}).items() if key not in SAID}
    return [*head(obj), *fields({**data, "metadata": metadata}), *events(found_events, now_s)]


SAID = ("name", "namespace", "labels", "annotations")
"""Metadata that the head has said already."""


def fields(data: dict[str, Any]) -> Lines:
    """A line per field, nested ones indented below."""
    lines: Lines = []
    for key in sorted(data):
        lines += _field(title(key), data[key])
    return lines


def _field(name: str, value: Any) -> Lines:
    if isinstance(value, dict) and value:
        return [f"{name}:", *indented(1, fields(value))]
    if isinstance(value, list) and value:
        return [f"{name}:", *(line for item in value for line in _item(item))]
    return [f"{name}:\t{'<nil>' if value is None else '' if value in ({}, []) else show(value)}"]


def _item(item: Any) -> Lines:
    if isinstance(item, dict):
        return indented(1, fields(item))
    return [f"  {show(item)}"]


def title(key: str) -> str:
    """``podCIDR`` as ``Pod CIDR``; keys that are data (``app.kubernetes.io/name``) stay."""
    if not key.isidentifier():
        return key
    if key.startswith("api") and key[3:4].isupper():
        key = f"API{key[3:]}"
    if key == "uid":
        return "UID"
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", key)
    return words[:1].upper() + words[1:]
