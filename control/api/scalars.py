"""The messages that are one JSON value each: times, quantities, numbers-or-text, embedded JSON.

``ENCODE[special](message)`` gives the JSON value, ``DECODE[special](value, message)`` fills the message or raises
ValueError with a sentence. Source: the custom (un)marshallers of apimachinery, as told by fields.tsv.
"""

import json
from collections.abc import Callable
from typing import Any

from control.api import quantity, times

JSON = Any
MAX_INT32 = 2**31 - 1


def describe(value: JSON) -> str:
    """A JSON value as an error names it: ``the text "x"``, ``the number 3``, ``a list``."""
    if isinstance(value, str):
        shown = value if len(value) <= 40 else value[:37] + "..."
        return f'the text "{shown}"'
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {value}"
    return "null" if value is None else "a list" if isinstance(value, list) else "an object"


def expect_text(value: JSON, what: str) -> str:
    """``value`` when it is text. Raises ValueError saying that ``what`` was expected."""
    if not isinstance(value, str):
        raise ValueError(f"expected {what} as text, got {describe(value)}")
    return value


def _encode_time(message: Any) -> JSON:
    return None if times.is_zero(message) else times.format_seconds(message.seconds)


def _decode_time(value: JSON, message: Any) -> None:
    message.seconds, _ = times.parse_rfc3339(expect_text(value, "a time"))


def _encode_microtime(message: Any) -> JSON:
    return None if times.is_zero(message) else times.format_micros(message.seconds, message.nanos)


def _decode_microtime(value: JSON, message: Any) -> None:
    message.seconds, nanos = times.parse_rfc3339(expect_text(value, "a time"))
    message.nanos = nanos // 1000 * 1000


def _encode_duration(message: Any) -> JSON:
    return times.format_duration(message.duration)


def _decode_duration(value: JSON, message: Any) -> None:
    message.duration = times.parse_duration(expect_text(value, "a duration"))


def _encode_quantity(message: Any) -> JSON:
    return quantity.canonical(message.string or "0")


def _decode_quantity(value: JSON, message: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"expected a quantity such as 500m or 1Gi, got {describe(value)}")
    message.string = quantity.canonical(value)


def _encode_intorstring(message: Any) -> JSON:
    return message.strVal if message.type == 1 else message.intVal


def _decode_intorstring(value: JSON, message: Any) -> None:
    if isinstance(value, str):
        message.type, message.strVal = 1, value
    elif isinstance(value, int) and not isinstance(value, bool) and -MAX_INT32 <= value <= MAX_INT32:
        message.type, message.intVal = 0, value
    else:
        raise ValueError(f"expected a number or text, got {describe(value)}")


def _encode_raw(message: Any) -> JSON:
    return _embedded(message.raw)


def _decode_raw(value: JSON, message: Any) -> None:
    message.raw = _compact(value)


def _encode_fields_v1(message: Any) -> JSON:
    return _embedded(message.Raw)


def _decode_fields_v1(value: JSON, message: Any) -> None:
    message.Raw = _compact(value)


def _encode_verbs(message: Any) -> JSON:
    return list(message.items)


def _decode_verbs(value: JSON, message: Any) -> None:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"expected a list of texts, got {describe(value)}")
    message.items.extend(value)


def _embedded(raw: bytes) -> JSON:
    if not raw:
        return None
    try:
        return json.loads(raw)
    except ValueError as err:
        raise ValueError("the embedded object is not JSON") from err


def _compact(value: JSON) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


ENCODE: dict[str, Callable[[Any], JSON]] = {
    "time": _encode_time,
    "microtime": _encode_microtime,
    "duration": _encode_duration,
    "quantity": _encode_quantity,
    "intorstring": _encode_intorstring,
    "rawextension": _encode_raw,
    "unknown": _encode_raw,
    "fieldsv1": _encode_fields_v1,
    "verbs": _encode_verbs,
}
DECODE: dict[str, Callable[[JSON, Any], None]] = {
    "time": _decode_time,
    "microtime": _decode_microtime,
    "duration": _decode_duration,
    "quantity": _decode_quantity,
    "intorstring": _decode_intorstring,
    "rawextension": _decode_raw,
    "unknown": _decode_raw,
    "fieldsv1": _decode_fields_v1,
    "verbs": _decode_verbs,
}
