"""Durations as kubectl writes and reads them. Pure."""

from ctl.errors import CtlError


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
    from control.api import times

    try:
        return times.parse_duration(text) / 1e9
    except times.TimeError as err:
        raise CtlError(f'invalid duration "{text}": {err}') from err
