"""The JSON facts of every message: one row per field in fields.tsv, read once and resolved per message on first use."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

COLUMNS = 9


@dataclass(frozen=True, slots=True)
class Field:
    """One field: how its JSON member is called, when it is left out, how patches merge it.

    ``scalar`` is string, bool, int32, int64, double or bytes; empty when the type (of an element) is ``message``.
    """

    name: str
    json: str
    inline: bool
    omit: str
    presence: str
    scalar: str
    message: str
    repeated: bool
    map: bool
    strategy: tuple[str, ...]
    merge_key: str
    list_type: str


@dataclass(frozen=True)
class Fields:
    """The fields of a message in JSON order. ``special``: the whole message is one JSON value of that kind.

    ``members`` finds a JSON member: the names of the inlined fields that lead to it, and its field.
    """

    special: str
    ordered: tuple[Field, ...]
    members: dict[str, tuple[tuple[str, ...], Field]]


SCALARS = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_BYTES: "bytes",
}

_resolved: dict[str, Fields] = {}


def fields_of(descriptor: Descriptor) -> Fields:
    """The facts of a message; a message the table does not know has none."""
    found = _resolved.get(descriptor.full_name)
    if found is None:
        found = _resolved[descriptor.full_name] = _resolve(descriptor)
    return found


@cache
def _rows() -> dict[str, list[list[str]]]:
    rows: dict[str, list[list[str]]] = defaultdict(list)
    for line in files("control.api").joinpath("fields.tsv").read_text().splitlines():
        columns = line.split("\t")
        if len(columns) == COLUMNS:
            rows[columns[0]].append(columns)
    return rows


def _resolve(descriptor: Any) -> Fields:
    rows = _rows().get(descriptor.full_name, [])
    if rows and rows[0][1] == "*":
        return Fields(rows[0][3], (), {})
    ordered = tuple(_field(descriptor.fields_by_name[row[1]], row) for row in rows)
    members: dict[str, tuple[tuple[str, ...], Field]] = {}
    for field in ordered:
        if field.inline:
            inner = fields_of(descriptor.fields_by_name[field.name].message_type)
            members.update({name: ((field.name, *chain), leaf) for name, (chain, leaf) in inner.members.items()})
        else:
            members[field.json] = ((), field)
    return Fields("", ordered, members)


def _field(proto: Any, row: list[str]) -> Field:
    is_map = proto.message_type is not None and proto.message_type.GetOptions().map_entry
    value = proto.message_type.fields_by_name["value"] if is_map else proto
    return Field(
        name=row[1],
        json=row[2],
        inline=row[3] == "inline",
        omit=row[4],
        presence=row[5],
        scalar=SCALARS.get(value.type, ""),
        message=value.message_type.full_name if value.message_type else "",
        repeated=proto.is_repeated and not is_map,
        map=is_map,
        strategy=() if row[6] == "-" else tuple(row[6].split(",")),
        merge_key="" if row[7] == "-" else row[7],
        list_type="" if row[8] == "-" else row[8],
    )
