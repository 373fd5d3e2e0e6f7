"""Kubernetes JSON to protobuf object: strict, and telling everything that is wrong at once, with the full path."""

import base64
import binascii
import difflib
from collections.abc import Sequence
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from control.api.fields import Field, Fields, fields_of
from control.api.kinds import UnknownKind, message_type, type_name
from control.api.scalars import DECODE, JSON, describe

INT_BITS = {"int32": 31, "int64": 63}
UNKNOWN = "unknown field"


class DecodeError(ValueError):
    """The JSON is not an object of its kind. ``errors`` lists every fault as (path, sentence)."""

    def __init__(self, errors: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{path}: {text}" if path else text for path, text in errors))
        self.errors = list(errors)


def from_json(data: JSON, message: type[Any] | None = None, unknown: list[tuple[str, str]] | None = None) -> Any:
    """The object that ``data`` describes, of the type its apiVersion and kind name.

    Args:
        data: the decoded JSON or YAML document. null members count as absent.
        message: the class wanted; then apiVersion and kind may be absent, but must match if present.
        unknown: where to put unknown fields, as (path, sentence), instead of refusing them.
    Raises:
        DecodeError: with every unknown field, wrong type and bad value in it.
    """
    if not isinstance(data, dict):
        raise DecodeError([("", f"expected an object with apiVersion and kind, got {describe(data)}")])
    result = (message or _named_type(data))()
    walk = _Decoder(unknown)
    if message is not None:
        walk.check_type(data, result, "")
    walk.fill(result, data, "")
    if walk.errors:
        raise DecodeError(walk.errors)
    return result


def _named_type(data: dict[str, JSON]) -> type[Any]:
    missing = [
        (name, f"required: say which {name}, for example {example}")
        for name, example in (("apiVersion", "v1"), ("kind", "Pod"))
        if not isinstance(data.get(name), str) or not data[name]
    ]
    if missing:
        raise DecodeError(missing)
    try:
        return message_type(data["apiVersion"], data["kind"])
    except UnknownKind as err:
        raise DecodeError([("kind", str(err))]) from err


class _Decoder:
    """One walk through one document, collecting faults."""

    def __init__(self, unknown: list[tuple[str, str]] | None) -> None:
        self.errors: list[tuple[str, str]] = []
        self.unknown = self.errors if unknown is None else unknown

    def fail(self, path: str, text: str) -> None:
        self.errors.append((path, text))

    def check_type(self, data: dict[str, JSON], target: Message, path: str) -> None:
        """apiVersion and kind, where written, must be the type's own."""
        named = type_name(target)
        for member, own in zip(("apiVersion", "kind"), named or (), strict=False):
            if data.get(member) not in (None, "", own):
                self.fail(_join(path, member), f"expected {own} here, got {describe(data[member])}")

    def fill(self, target: Any, data: JSON, path: str) -> None:
        """Decode ``data`` into ``target``."""
        facts = fields_of(target.DESCRIPTOR)
        if facts.special:
            self._fill_special(facts.special, target, data, path)
        elif not isinstance(data, dict):
            self.fail(path, f"expected an object, got {describe(data)}")
        else:
            for key, value in data.items():
                self._member(target, facts, str(key), value, path)

    def _fill_special(self, special: str, target: Any, data: JSON, path: str) -> None:
        try:
            DECODE[special](data, target)
        except ValueError as err:
            self.fail(path, str(err))

    def _member(self, target: Any, facts: Fields, key: str, value: JSON, path: str) -> None:
        found = facts.members.get(key)
        if found is None:
            if key not in ("apiVersion", "kind") or not type_name(target):
                self.unknown.append((_join(path, key), _unknown(key, facts)))
        elif value is not None:
            for inlined in found[0]:
                target = getattr(target, inlined)
            self._field(target, found[1], value, _join(path, key))

    def _field(self, target: Any, field: Field, value: JSON, path: str) -> None:
        if field.map:
            self._map(getattr(target, field.name), field, value, path)
        elif field.repeated:
            self._list(getattr(target, field.name), field, value, path)
        elif field.message:
            inner = getattr(target, field.name)
            if field.presence == "pointer":
                inner.SetInParent()
            self.fill(inner, value, path)
        else:
            self._set_scalar(target, field, value, path)

    def _set_scalar(self, target: Any, field: Field, value: JSON, path: str) -> None:
        decoded = self._scalar(field, value, path)
        if decoded is not None and (decoded or field.presence == "pointer"):
            setattr(target, field.name, decoded)

    def _map(self, target: Any, field: Field, value: JSON, path: str) -> None:
        if not isinstance(value, dict):
            self.fail(path, f"expected an object, got {describe(value)}")
            return
        for key, item in value.items():
            at = f"{path}[{key}]"
            if field.message:
                self.fill(target[str(key)], item, at)
            else:
                decoded = self._scalar(field, "" if item is None else item, at)
                if decoded is not None:
                    target[str(key)] = decoded

    def _list(self, target: Any, field: Field, value: JSON, path: str) -> None:
        if not isinstance(value, list):
            self.fail(path, f"expected a list, got {describe(value)}")
            return
        for index, item in enumerate(value):
            at = f"{path}[{index}]"
            if field.message:
                self.fill(target.add(), {} if item is None else item, at)
            else:
                decoded = self._scalar(field, item, at)
                if decoded is not None:
                    target.append(decoded)

    def _scalar(self, field: Field, value: JSON, path: str) -> Any:
        """The value in the field's type, or None after noting what is wrong with it."""
        try:
            return _SCALARS[field.scalar](value, field.scalar)
        except ValueError as err:
            self.fail(path, str(err))
            return None


def _text(value: JSON, scalar: str) -> str:
    if isinstance(value, str):
        return value
    shown = str(value).lower() if isinstance(value, bool) else value
    hint = f'; quote it: "{shown}"' if isinstance(value, int | float) else ""
    raise ValueError(f"expected text, got {describe(value)}{hint}")


def _flag(value: JSON, scalar: str) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"expected true or false, got {describe(value)}")


def _integer(value: JSON, scalar: str) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"expected a whole number, got {describe(value)}")
    limit = 2 ** INT_BITS[scalar]
    if not -limit <= value < limit:
        raise ValueError(f"{value} is out of range: it must be at least {-limit} and at most {limit - 1}")
    return value


def _number(value: JSON, scalar: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, got {describe(value)}")
    return float(value)


def _bytes(value: JSON, scalar: str) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"expected base64 text, got {describe(value)}")
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError) as err:
        raise ValueError(f"not base64: encode it, or use stringData in a Secret (got {describe(value)})") from err


_SCALARS: dict[str, Any] = {
    "string": _text,
    "bool": _flag,
    "int32": _integer,
    "int64": _integer,
    "double": _number,
    "bytes": _bytes,
}


def _unknown(key: str, facts: Fields) -> str:
    same = [name for name in facts.members if name.lower() == key.lower()]
    close = same or difflib.get_close_matches(key, facts.members, n=1)
    return f"{UNKNOWN}, did you mean {close[0]}?" if close else UNKNOWN


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def class_of(full_name: str) -> type[Any]:
    """The class of a message by full name; KeyError when this program does not know it."""
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(full_name))
