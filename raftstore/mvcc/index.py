"""The key index: which revisions each key has. In memory, rebuilt from the database at start.

The rules, for one key: revisions ascend; a tombstone ends a life of the key and the next put begins another. At
revision ``r`` the key has the value of its newest revision at or below ``r``, or none if that is a tombstone.
"""

from bisect import bisect_left

from raftstore.mvcc.revision import Rev, is_tombstone, main_of, pack
from raftstore.mvcc.sorted_keys import SortedKeys


class KeyIndex:
    """Maps ``key, main revision`` to the packed revision whose record holds the value then."""

    def __init__(self) -> None:
        self._revs: dict[bytes, list[Rev]] = {}
        self._sorted = SortedKeys()
        # Keys with more than one revision, or dead: all that a compaction can shorten.
        self._aged: set[bytes] = set()

    def __len__(self) -> int:
        """How many versions are kept."""
        return sum(map(len, self._revs.values()))

    def count(self) -> int:
        """How many keys are kept, deleted ones included until a compaction."""
        return len(self._revs)

    def add(self, key: bytes, rev: Rev) -> None:
        """Record that ``rev``, newer than all others, wrote or (as a tombstone) deleted ``key``."""
        revs = self._revs.get(key)
        if revs is None:
            self._revs[key] = [rev]
            self._sorted.add(key)
            if is_tombstone(rev):
                self._aged.add(key)
        else:
            revs.append(rev)
            self._aged.add(key)

    def get(self, key: bytes, at: int | None = None) -> Rev | None:
        """The revision visible at main revision ``at`` (None: the newest), or None if the key does not exist then."""
        revs = self._revs.get(key)
        return None if revs is None else _visible(revs, at)

    def has(self, key: bytes, rev: Rev) -> bool:
        """Whether ``rev`` of ``key`` is kept."""
        revs = self._revs.get(key, [])
        at = bisect_left(revs, rev)
        return at < len(revs) and revs[at] == rev

    def range(self, start: bytes, end: bytes | None, at: int | None = None) -> list[Rev]:
        """Visible revisions of the keys in ``[start, end)``, in key order; ``end`` None means no end."""
        revs = self._revs
        if at is None:  # the common case, and a long list of keys makes it worth a line of its own
            return [rev for key in self._sorted.range(start, end) if not (rev := revs[key][-1]) & 1]
        found = (_visible(revs[key], at) for key in self._sorted.range(start, end))
        return [rev for rev in found if rev is not None]

    def compact(self, at: int) -> list[Rev]:
        """Forget what no revision >= ``at`` needs; returns the forgotten revisions.

        Of each key the newest revision at or below ``at`` stays. A tombstone in that place goes too, unless it
        happened at ``at`` itself: a watch may still start there and must see the deletion.
        """
        dead: list[Rev] = []
        for key in list(self._aged):
            revs = self._revs[key]
            cut = _first_needed(revs, at)
            dead += revs[:cut]
            del revs[:cut]
            self._forget_if_young(key, revs)
        return dead

    def _forget_if_young(self, key: bytes, revs: list[Rev]) -> None:
        if not revs:
            del self._revs[key]
            self._sorted.remove(key)
        if not revs or (len(revs) == 1 and not is_tombstone(revs[0])):
            self._aged.discard(key)


def _visible(revs: list[Rev], at: int | None) -> Rev | None:
    if at is None:
        rev = revs[-1]
    else:
        newer = bisect_left(revs, pack(at + 1))
        if newer == 0:
            return None
        rev = revs[newer - 1]
    return None if rev & 1 else rev


def _first_needed(revs: list[Rev], at: int) -> int:
    newest = bisect_left(revs, pack(at + 1)) - 1
    if newest >= 0 and is_tombstone(revs[newest]) and main_of(revs[newest]) < at:
        return newest + 1
    return max(newest, 0)
