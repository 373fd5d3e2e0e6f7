"""Cells that several kinds share."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from control.api.times import human_duration

NONE, UNKNOWN, UNSET = "<none>", "<unknown>", "<unset>"
LIST_MAX = 3
"""Endpoints shown before `` + N more...``."""


def age(instant: Any, now_s: float) -> str:
    """How long ago a Time was."""
    if instant is None or not (instant.seconds or instant.nanos):
        return UNKNOWN
    return human_duration(now_s - instant.seconds)


def or_none(text: str) -> str:
    """``<none>`` for nothing."""
    return text or NONE


def joined(items: Iterable[str]) -> str:
    """``a,b``, or ``<none>``."""
    return ",".join(items) or NONE


def labels(pairs: Mapping[str, str]) -> str:
    """``a=b,c=d`` in key order, or ``<none>``."""
    return joined(f"{key}={pairs[key]}" for key in sorted(pairs))


def selector(message: Any) -> str:
    """A LabelSelector as text, as kubectl formats one."""
    parts = [f"{key}={message.matchLabels[key]}" for key in sorted(message.matchLabels)]
    parts += [_requirement(each) for each in message.matchExpressions]
    return ",".join(parts) or NONE


def _requirement(each: Any) -> str:
    values = ",".join(sorted(each.values))
    forms = {"In": f"{each.key} in ({values})", "NotIn": f"{each.key} notin ({values})"}
    return forms.get(each.operator) or (each.key if each.operator == "Exists" else f"!{each.key}")


def containers(template_spec: Any) -> str:
    """Names of the containers."""
    return ",".join(container.name for container in template_spec.containers)


def images(template_spec: Any) -> str:
    """Images of the containers."""
    return ",".join(container.image for container in template_spec.containers)


def first_of(items: Sequence[str], most: int = LIST_MAX) -> str:
    """``a,b,c + 2 more...``, or ``<none>``."""
    shown = joined(items[:most])
    return shown if len(items) <= most else f"{shown} + {len(items) - most} more..."


def int_or_string(value: Any) -> str:
    """An IntOrString."""
    return str(value.strVal) if value.type == 1 else str(value.intVal)


def address(ip: str, port: int) -> str:
    """``ip:port``, brackets around IPv6."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def access_modes(modes: Iterable[str]) -> str:
    """``RWO,ROX``."""
    return ",".join(_MODES.get(mode, mode) for mode in dict.fromkeys(modes))
