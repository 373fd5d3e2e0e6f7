"""Durations as kubectl writes and reads them. Pure."""

import re
from decimal import Decimal

from ctl.errors import CtlError

_UNITS_S = {"ns": "1e-9", "us": "1e-6", "µs": "1e-6", "ms": "1e-3", "s": "1", "m": "60", "h": "3600"}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def human_duration(seconds: float) -> str:
    """An age in at most two units, coarser as it grows: ``45s``, ``3m20s``, ``5h``, ``2d3h``, ``5d``, ``2y10d``.

    Thresholds as in kubectl (apimachinery util/duration HumanDuration).
    """
    total = int(seconds)
    if total < -1:
        return "<invalid>"
    total = max(total, 0)
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if total < 120:
        return f"{total}s"
    if minutes < 10:
        return _two(minutes, "m", total % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 2920:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(big: int, big_unit: str, small: int, small_unit: str) -> str:
    return f"{big}{big_unit}{small}{small_unit}" if small else f"{big}{big_unit}"


def parse_duration(text: str) -> float:
    """Seconds of a Go duration (``1h30m``, ``500ms``, ``0``). Raises CtlError for anything else."""
    sign, body = (-1, text[1:]) if text.startswith("-") else (1, text)
    if body == "0":
        return 0.0
    parts = _PART.findall(body)
    if not parts or "".join(number + unit for number, unit in parts) != body:
        raise CtlError(f'invalid duration "{text}": write it as 30s, 5m or 1h30m')
    return float(sign * sum(Decimal(number) * Decimal(_UNITS_S[unit]) for number, unit in parts))
