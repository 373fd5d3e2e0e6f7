"""Manifests: YAML or JSON text to objects and back, refusing duplicate keys and naming lines and documents."""

import json
from typing import Any

from google.protobuf.message import Message

from control.api.decode import DecodeError, from_json
from control.api.encode import to_json
from control.api.scalars import JSON


def yaml_documents(text: str) -> list[JSON]:
    """The documents of YAML (or JSON) text as plain data, empty ones left out. Raises DecodeError with the line."""
    from control.api import yamltext

    return yamltext.load(text)


def from_yaml_documents(text: str) -> list[Any]:
    """The objects of a manifest; the items of a ``kind: List`` come one by one.

    Raises DecodeError with the faults of all documents, each path led by ``document N:`` when there are several.
    """
    documents = [item for data in yaml_documents(text) for item in _flattened(data)]
    objects, errors = [], []
    for number, data in enumerate(documents, 1):
        try:
            objects.append(from_json(data))
        except DecodeError as err:
            lead = f"document {number}: " if len(documents) > 1 else ""
            errors += [(f"{lead}{path}", fault) for path, fault in err.errors]
    if errors:
        raise DecodeError(errors)
    return objects


def _flattened(data: JSON) -> list[JSON]:
    if isinstance(data, dict) and str(data.get("kind", "")).endswith("List") and isinstance(data.get("items"), list):
        kind = data["kind"].removesuffix("List")
        implied = {"apiVersion": data.get("apiVersion"), "kind": kind} if kind else {}
        return [{**implied, **item} if isinstance(item, dict) else item for item in data["items"]]
    return [data]


def parse_json(text: str | bytes) -> JSON:
    """JSON text as data. Raises DecodeError for bad syntax and for duplicate keys."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except ValueError as err:
        if isinstance(err, DecodeError):
            raise
        raise DecodeError([("", f"not JSON: {err}")]) from err


def _unique(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DecodeError([(twice, "duplicate field")])
    return result


def to_yaml(message: Message | dict[str, JSON]) -> str:
    """YAML text of an object (or of JSON data), in the order of its JSON members."""
    from control.api import yamltext

    return yamltext.dump(to_json(message) if isinstance(message, Message) else message)
