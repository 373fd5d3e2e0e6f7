"""A sorted set of byte strings: a list of short sorted lists, so that adding one key moves few others."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator

_CHUNK_KEYS_MAX = 1024


class SortedKeys:
    """Distinct keys in byte order. Adding and removing is O(sqrt n) in practice, walking a range O(its length)."""

    def __init__(self) -> None:
        # Invariant: no chunk is empty; chunks and keys within them ascend; _lows[i] == _chunks[i][0].
        self._chunks: list[list[bytes]] = []
        self._lows: list[bytes] = []

    def __len__(self) -> int:
        return sum(map(len, self._chunks))

    def add(self, key: bytes) -> None:
        """Add a key that is not in the set."""
        if not self._chunks:
            self._chunks.append([key])
            self._lows.append(key)
            return
        at = self._chunk_of(key)
        chunk = self._chunks[at]
        insort(chunk, key)
        self._lows[at] = chunk[0]
        if len(chunk) > _CHUNK_KEYS_MAX:
            self._split(at)

    def remove(self, key: bytes) -> None:
        """Remove a key that is in the set."""
        at = self._chunk_of(key)
        chunk = self._chunks[at]
        del chunk[bisect_left(chunk, key)]
        if chunk:
            self._lows[at] = chunk[0]
        else:
            del self._chunks[at], self._lows[at]

    def range(self, start: bytes, end: bytes | None) -> Iterator[bytes]:
        """Keys in ``[start, end)``; None means no end. The set must not change meanwhile."""
        if not self._chunks:
            return
        first = self._chunk_of(start)
        for chunk in self._chunks[first:]:
            lo = bisect_left(chunk, start) if chunk[0] < start else 0
            if end is not None and chunk[-1] >= end:
                yield from chunk[lo : bisect_left(chunk, end)]
                return
            yield from chunk[lo:] if lo else chunk

    def _chunk_of(self, key: bytes) -> int:
        return max(bisect_right(self._lows, key) - 1, 0)

    def _split(self, at: int) -> None:
        chunk = self._chunks[at]
        half = len(chunk) // 2
        self._chunks[at : at + 1] = [chunk[:half], chunk[half:]]
        self._lows.insert(at + 1, chunk[half])
