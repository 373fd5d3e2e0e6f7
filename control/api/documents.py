"""Manifests: YAML or JSON text to objects and back, refusing duplicate keys and naming lines and documents."""

import json
import re
from typing import Any

import yaml
from google.protobuf.message import Message

from control.api.decode import DecodeError, from_json
from control.api.encode import to_json
from control.api.scalars import JSON

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
TIMESTAMP, INTEGER = "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:int"


class Loader(_Base):
    """YAML as Kubernetes reads it: times stay text, ``1:30`` is not ninety, a key may not come twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """See yaml; raises DecodeError naming a duplicate key and its line."""
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key in seen and key != "<<":
                raise DecodeError([(str(key), f"duplicate field (line {key_node.start_mark.line + 1})")])
            seen.add(key)
        return super().construct_mapping(node, deep)


def _plain(resolvers: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return [pair for pair in resolvers if pair[0] not in (TIMESTAMP, INTEGER)]


def _use_plain_resolvers() -> None:
    Loader.yaml_implicit_resolvers = {key: _plain(value) for key, value in _Base.yaml_implicit_resolvers.items()}
    decimal = re.compile(r"[-+]?0b[01_]+|[-+]?0o?[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+")
    Loader.add_implicit_resolver(INTEGER, re.compile(f"^(?:{decimal.pattern})$"), list("-+0123456789"))


_use_plain_resolvers()


def yaml_documents(text: str) -> list[JSON]:
    """The documents of YAML (or JSON) text as plain data, empty ones left out. Raises DecodeError with the line."""
    try:
        return [data for data in yaml.load_all(text, Loader=Loader) if data is not None]
    except yaml.YAMLError as err:
        raise DecodeError([("", f"not YAML: {' '.join(str(err).split())}")]) from err


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
    data = to_json(message) if isinstance(message, Message) else message
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return text
