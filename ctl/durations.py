"""Durations as kubectl's flags take them. Pure."""

from ctl.errors import CtlError


def parse_duration(text: str) -> float:
    """Seconds of a Go duration (``1h30m``, ``500ms``, ``0``). Raises CtlError for anything else."""
    from control.api import times

    try:
        return times.parse_duration(text) / 1e9
    except times.TimeError as err:
        raise CtlError(f'invalid duration "{text}": {err}') from err
