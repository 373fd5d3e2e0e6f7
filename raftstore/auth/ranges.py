"""Sets of keys, as sorted intervals that neither overlap nor touch."""

from bisect import bisect_right
from collections.abc import Iterable

Interval = tuple[bytes, bytes | None]
"""Keys ``[start, end)``; end None means no end."""


def interval(key: bytes, range_end: bytes) -> Interval:
    """What a request's ``key`` and ``range_end`` select (etcd's conventions for a single key and for no end)."""
    if not range_end:
        return key, key + b"\0"
    return key, None if range_end == b"\0" else range_end


class Ranges:
    """A union of intervals."""

    def __init__(self, intervals: Iterable[Interval]) -> None:
        # Invariant: _starts[i] < _ends[i] < _starts[i + 1]; only the last end may be None.
        self._starts: list[bytes] = []
        self._ends: list[bytes | None] = []
        for start, end in sorted(intervals, key=lambda item: item[0]):
            self._add(start, end)

    def _add(self, start: bytes, end: bytes | None) -> None:
        if end is not None and end <= start:
            return
        if self._starts and (self._ends[-1] is None or start <= self._ends[-1]):
            last = self._ends[-1]
            self._ends[-1] = None if last is None or end is None else max(last, end)
        else:
            self._starts.append(start)
            self._ends.append(end)

    def cover(self, wanted: Interval) -> bool:
        """Whether every key of ``wanted`` is in the set. An interval without keys is not."""
        start, end = wanted
        at = bisect_right(self._starts, start) - 1
        if at < 0 or (end is not None and end <= start):
            return False
        reach = self._ends[at]
        return reach is None or (end is not None and end <= reach)
