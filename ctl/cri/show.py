"""What crictl prints: its tables, its ages and sizes, and its JSON. Pure, but for the printing at the end."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from ctl.errors import CtlError

MIN_WIDTH, PADDING = 20, 3
ID_LENGTH = 13
SIZE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as crictl's tab writer sets them: at least 20 wide, three spaces apart, the last one free."""
    count = max(map(len, rows), default=0)
    widths = [max(MIN_WIDTH, PADDING + max(len(row[i]) for row in rows)) for i in range(count - 1)]
    return "".join("".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]) + "\n" for row in rows)


def short_id(text: str) -> str:
    """The part of an id, or of a digest, that a person needs."""
    return text.rpartition(":")[2][:ID_LENGTH]


def ago(created_ns: int) -> str:
    """How long ago, in one unit (docker's and crictl's words)."""
    return human_duration(time.time() - created_ns / 1e9) + " ago"


def human_duration(seconds: float) -> str:
    """A duration in one unit, coarser as it grows. Source: docker/go-units HumanDuration."""
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if int(seconds) == 1 else f"{int(seconds)} seconds"
    minutes, hours = int(seconds // 60), int(seconds / 3600 + 0.5)
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for limit, days, unit in ((14, 1, "days"), (60, 7, "weeks"), (730, 30, "months")):
        if hours < 24 * limit:
            return f"{hours // 24 // days} {unit}"
    return f"{int(seconds / 3600) // 24 // 365} years"


def human_size(size: float, precision: int = 4) -> str:
    """Bytes in decimal units: ``12.5MB``. Source: docker/go-units HumanSizeWithPrecision."""
    unit = 0
    while size >= 1000 and unit < len(SIZE_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.{precision}g}{SIZE_UNITS[unit]}"


def timestamp(nanoseconds: int) -> str:
    """RFC 3339 in local time, with the fraction that it needs; the zero time for 0."""
    if nanoseconds == 0:
        return "0001-01-01T00:00:00Z"
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds).astimezone()
    digits = f".{fraction:09d}".rstrip("0").rstrip(".")
    zone = moment.strftime("%z")
    return f"{moment:%Y-%m-%dT%H:%M:%S}{digits}" + ("Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}")


def to_dict(message: Any) -> dict[str, Any]:
    """A message as protobuf JSON, defaults included."""
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message, always_print_fields_with_no_presence=True)


def info_of(info: Mapping[str, str]) -> dict[str, Any]:
    """A verbose answer's ``info`` map: each value is JSON, or plain text."""
    return {key: _parsed(value) for key, value in info.items()}


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value.strip('"')


def print_data(data: Any, form: str, sort: bool = False) -> None:
    """Print a document as ``json`` or ``yaml``. Raises CtlError for another form."""
    if form == "json":
        click.echo(json.dumps(data, indent=2, sort_keys=sort, ensure_ascii=False))
    elif form == "yaml":
        import yaml

        click.echo(yaml.safe_dump(data, sort_keys=True, allow_unicode=True), nl=False)
    else:
        raise CtlError(f'unsupported output format "{form}": use json, yaml or table')


def print_statuses(statuses: Sequence[dict[str, Any]], form: str) -> None:
    """Print what inspect found: one document alone, several in a list."""
    print_data(statuses[0] if len(statuses) == 1 else list(statuses), form, sort=True)


def print_fields(pairs: Iterable[tuple[str, object]]) -> None:
    """``Key: value`` lines; a mapping as a block of sorted ``key -> value`` lines."""
    for key, value in pairs:
        if isinstance(value, Mapping):
            click.echo(f"{key}:")
            for name in sorted(value):
                click.echo(f"\t{name} -> {value[name]}")
        else:
            click.echo(f"{key}: {value}")
