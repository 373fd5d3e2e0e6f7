"""Lines that several kinds share. A level is two blanks of indentation."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from control.api.printers.parts import NONE, UNSET, age

Lines = list[str]


def indented(level: int, lines: Iterable[str]) -> Lines:
    """The lines, ``level`` steps to the right."""
    return [f"{'  ' * level}{line}" for line in lines]


def head(obj: Any, *more: str) -> Lines:
    """Name, namespace, ``more``, labels, annotations."""
    meta = obj.metadata
    lines = [f"Name:\t{meta.name}"]
    if meta.namespace:
        lines.append(f"Namespace:\t{meta.namespace}")
    return [*lines, *more, *mapping("Labels", meta.labels), *mapping("Annotations", shown_annotations(meta))]


HIDDEN = {"kubectl.kubernetes.io/last-applied-configuration"}


def shown_annotations(meta: Any) -> dict[str, str]:
    """Annotations without those that only say again what the object says."""
    return {key: value for key, value in meta.annotations.items() if key not in HIDDEN}


def mapping(title: str, pairs: Mapping[str, str], separator: str = "=", between: str | None = None) -> Lines:
    """``Labels:  a=b`` and the others below; ``<none>``. Annotations use ``key: value``."""
    join = between or (": " if title == "Annotations" else separator)
    items = [f"{key}{join}{pairs[key]}" for key in sorted(pairs)] or [NONE]
    return [f"{title}:\t{items[0]}", *(f"\t{item}" for item in items[1:])]


def timestamp(instant: Any) -> str:
    """``Tue, 24 Nov 2026 14:00:00 +0000``, in the local time zone; ``<unset>`` for none."""
    if not instant.seconds:
        return UNSET
    return time.strftime("%a, %d %b %Y %H:%M:%S %z", time.localtime(instant.seconds))


def events(found: Sequence[Any] | None, now_s: float) -> Lines:
    """The Events section; nothing when they are not wanted (None)."""
    if found is None:
        return []
    if not found:
        return [f"Events:\t{NONE}"]
    rows = [("Type", "Reason", "Age", "From", "Message"), ("----", "------", "----", "----", "-------")]
    rows += [(e.type, e.reason, _when(e, now_s), _from(e), _message(e)) for e in found]
    return ["Events:", *("  " + "\t".join(row) for row in rows)]


def _when(event: Any, now_s: float) -> str:
    first = event.firstTimestamp if event.firstTimestamp.seconds else event.eventTime
    last = event.series.lastObservedTime if event.HasField("series") else event.lastTimestamp
    count = event.series.count if event.HasField("series") else event.count
    latest = age(last if last.seconds else first, now_s)
    return f"{latest} (x{count} over {age(first, now_s)})" if count > 1 else latest


def _message(event: Any) -> str:
    """What happened, led by the part of the object to which it did."""
    where = event.involvedObject.fieldPath
    return f"{where}: {event.message.strip()}" if where else str(event.message.strip())


def _from(event: Any) -> str:
    return str(event.source.component or event.reportingComponent)


def quantities(title: str, resources: Mapping[str, Any]) -> Lines:
    """``Limits:`` and a line per resource below; nothing when there are none."""
    if not resources:
        return []
    return [f"{title}:", *(f"  {name}:\t{resources[name].string}" for name in sorted(resources))]


def table(rows: Sequence[Sequence[str]]) -> Lines:
    """A header, a rule under each word of it, and rows; indented once."""
    rule = ["-" * len(word) for word in rows[0]]
    return ["  " + "\t".join(row) for row in (rows[0], rule, *rows[1:])]


Describe = Callable[..., Lines]
