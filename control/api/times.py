"""Instants and durations as Kubernetes writes them: RFC 3339 in whole seconds or microseconds, Go duration text."""

import re
import time
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from protos.k8s.meta_v1_pb2 import MicroTime, Time

RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
GO_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
GO_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TimeError(ValueError):
    """Not an instant or duration; the message says what one looks like."""


def now() -> Time:
    """This second."""
    return Time(seconds=int(time.time()))


def now_micro() -> MicroTime:
    """This microsecond."""
    seconds, nanos = divmod(time.time_ns(), 10**9)
    return MicroTime(seconds=seconds, nanos=nanos // 1000 * 1000)


def is_zero(instant: Time | MicroTime) -> bool:
    """True for an unset instant."""
    return not instant.seconds and not instant.nanos


def format_seconds(seconds: int) -> str:
    """``2026-01-31T12:00:00Z``."""
    return _instant(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micros(seconds: int, nanos: int) -> str:
    """``2026-01-31T12:00:00.000000Z``, always six decimals."""
    return f"{_instant(seconds):%Y-%m-%dT%H:%M:%S}.{nanos // 1000:06d}Z"


def _instant(seconds: int) -> datetime:
    try:
        return EPOCH + timedelta(seconds=seconds)
    except OverflowError as err:
        raise TimeError(f"{seconds} seconds since 1970 is no year from 1 to 9999") from err


def parse_rfc3339(text: str) -> tuple[int, int]:
    """(seconds, nanoseconds) since 1970. Raises TimeError."""
    found = RFC3339.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        year, month, day, hour, minute, second = (int(found[i]) for i in range(1, 7))
        instant = datetime(year, month, day, hour, minute, second, tzinfo=UTC) - _offset(found[8])
        return int((instant - EPOCH).total_seconds()), int((found[7] or "").ljust(9, "0"))
    except (ValueError, OverflowError) as err:
        raise TimeError(f"{text!r} is not a time: write RFC 3339, as in 2026-01-31T12:00:00Z") from err


def _offset(zone: str) -> timedelta:
    if zone in "Zz":
        return timedelta(0)
    hours, minutes = int(zone[1:3]), int(zone[4:6])
    if hours > 23 or minutes > 59:
        raise ValueError(zone)
    return timedelta(hours=hours, minutes=minutes) * (-1 if zone[0] == "-" else 1)


def parse_duration(text: str) -> int:
    """Nanoseconds of Go duration text such as ``1m30s``. Raises TimeError."""
    body = text.lstrip("+-") if text[:2] not in ("++", "--", "+-", "-+") else ""
    parts = GO_DURATION.findall(body)
    if body == "0":
        return 0
    if not parts or "".join(number + unit for number, unit in parts) != body:
        raise TimeError(f"{text!r} is not a duration: write numbers with units, as in 300ms, 90s, 1h30m")
    total = int(sum(Fraction(number) * GO_UNITS[unit] for number, unit in parts))
    return -total if text.startswith("-") else total


def format_duration(nanos: int) -> str:
    """Go duration text: ``1h0m0s``, ``1m30s``, ``1.5s``, ``250ms``, ``0s``."""
    sign, rest = ("-", -nanos) if nanos < 0 else ("", nanos)
    if rest < 10**9:
        return sign + _below_second(rest)
    hours, rest = divmod(rest, GO_UNITS["h"])
    minutes, rest = divmod(rest, GO_UNITS["m"])
    head = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{head}{_decimal(rest, 9)}s"


def _below_second(nanos: int) -> str:
    for unit, digits in (("ms", 6), ("µs", 3), ("ns", 0)):
        if nanos >= 10**digits and nanos:
            return _decimal(nanos, digits) + unit
    return "0s"


def _decimal(value: int, digits: int) -> str:
    whole, part = divmod(value, 10**digits)
    fraction = str(part).zfill(digits).rstrip("0") if part else ""
    return f"{whole}.{fraction}" if fraction else str(whole)


def seconds_since(instant: Time | MicroTime, at: float | None = None) -> float:
    """How long ago ``instant`` was, in seconds; 0 for an unset one."""
    if is_zero(instant):
        return 0.0
    return (time.time() if at is None else at) - instant.seconds - instant.nanos / 1e9


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
        return _two_units(minutes, "m", total % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two_units(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return _two_units(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 2920:
        return _two_units(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two_units(big: int, big_unit: str, small: int, small_unit: str) -> str:
    return f"{big}{big_unit}{small}{small_unit}" if small else f"{big}{big_unit}"
