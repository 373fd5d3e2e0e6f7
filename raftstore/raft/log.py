"""The log as Raft sees it: a run of entries in memory and three cursors along it.

::

    compacted | first ........ applied ........ committed ........ last
                      stable (on this disk) lies anywhere from applied to last
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import attrgetter

from raftstore.errors import check
from raftstore.raft.types import Entry, EntryKind, Index, Term

ENTRY_OVERHEAD_BYTES = 24
"""What an entry costs beside its data, wherever bytes of entries are counted."""

_term = attrgetter("term")


def _size(entry: Entry) -> int:
    return len(entry.data) + ENTRY_OVERHEAD_BYTES


class RaftLog:
    """Entries ``[first_index, last_index]`` and what is known about them."""

    def __init__(self, compacted: tuple[Index, Term], entries: Iterable[Entry], commit: Index = 0) -> None:
        """A log read back from disk. Raises InvariantBroken if it ends before ``commit``: the disk lost entries.

        Args:
            compacted: index and term of the entry before the first one; all up to it are applied.
            entries: what the disk holds after that, contiguous.
            commit: the commit index last recorded.
        """
        self._before = compacted
        self._entries = list(entries)
        # Invariant: _ends[i] is the size of the first i entries since the log was made (or reset), so that the size
        # of any run is one subtraction. One longer than _entries.
        self._ends = list(accumulate(map(_size, self._entries), initial=0))
        # Invariant: applied <= min(committed, stable) and committed <= last_index.
        self.begins_anew = False
        """What the disk has does not lead to this log: it must be told that the log begins after ``applied``."""
        self.applied: Index = compacted[0]
        self.stable: Index = self.last_index
        self.committed: Index = max(commit, compacted[0])
        check(self.committed <= self.last_index, "the log holds all that was committed", commit=commit)

    @classmethod
    def recover(cls, applied: tuple[Index, Term], entries: Sequence[Entry], commit: Index) -> "RaftLog":
        """The log of a member whose machine is at ``applied`` and whose disk holds ``entries``, contiguous.

        The entries may begin before or after the machine's: what it contains is left out. A snapshot may have been
        installed in the machine just before a crash; then entries that do not follow on it are of no use.
        """
        index, term = applied
        first = entries[0].index if entries else index + 1
        at = index - first
        follows = first == index + 1 or (0 <= at < len(entries) and entries[at].term == term)
        log = cls(applied, entries[at + 1 :] if follows else (), commit if follows else index)
        log.begins_anew = not follows
        return log

    # -- reading -------------------------------------------------------------------------------------------------

    @property
    def first_index(self) -> Index:
        """Index of the oldest entry still here, or where it would be."""
        return self._before[0] + 1

    @property
    def last_index(self) -> Index:
        """Index of the newest entry."""
        return self._before[0] + len(self._entries)

    @property
    def last_term(self) -> Term:
        """Term of the newest entry."""
        return self._entries[-1].term if self._entries else self._before[1]

    @property
    def uncommitted_bytes(self) -> int:
        """Size of the entries that are not known to be committed."""
        return self._ends[-1] - self._ends[self.committed - self._before[0]]

    def term(self, index: Index) -> Term | None:
        """Term of the entry at ``index``, or None if it is compacted or not there yet."""
        at = index - self._before[0]
        if at == 0:
            return self._before[1]
        return self._entries[at - 1].term if 0 < at <= len(self._entries) else None

    def slice(self, lo: Index, hi: Index, bytes_max: int = 0) -> list[Entry]:
        """Entries ``[lo, hi)``, all of which must be here; fewer if they exceed ``bytes_max``, but at least one."""
        first = self._before[0] + 1
        check(first <= lo <= hi <= self.last_index + 1, "slice lies within the log", lo=lo, hi=hi, first=first)
        start, stop = lo - first, hi - first
        if bytes_max and start < stop and self._ends[stop] - self._ends[start] > bytes_max:
            stop = max(bisect_right(self._ends, self._ends[start] + bytes_max, start, stop) - 1, start + 1)
        return self._entries[start:stop]

    def size_bytes(self, lo: Index, hi: Index) -> int:
        """Size of the entries ``[lo, hi)``."""
        first = self._before[0] + 1
        return self._ends[hi - first] - self._ends[lo - first]

    def unstable(self) -> list[Entry]:
        """Entries not yet on this disk."""
        return self.slice(self.stable + 1, self.last_index + 1)

    def applicable(self, bytes_max: int = 0) -> list[Entry]:
        """Entries that are committed and on this disk, and not yet applied."""
        return self.slice(self.applied + 1, max(self.applied, min(self.committed, self.stable)) + 1, bytes_max)

    def has_unapplied_conf_change(self) -> bool:
        """Whether membership changes once all that is committed is applied."""
        pending = self.slice(self.applied + 1, self.committed + 1)
        return any(entry.kind is EntryKind.CONF_CHANGE for entry in pending)

    def is_up_to_date(self, last_index: Index, last_term: Term) -> bool:
        """Whether a log that ends so is at least as new as this one (Raft §5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def agreement_hint(self, index: Index, term: Term) -> tuple[Index, Term]:
        """The highest entry up to ``index`` whose term is not above ``term``: no later one can be the other log's.

        Terms never fall along a log, so one message skips all entries of the terms that the other has not seen
        (the fast back-off of Raft §5.3), and the search is a bisection. Index and term are 0 if all is compacted.
        """
        count = min(index, self.last_index) - self._before[0]
        if count < 0:
            return 0, 0
        at = bisect_right(self._entries, term, 0, count, key=_term)
        if at:
            return self._before[0] + at, self._entries[at - 1].term
        return self._before if self._before[1] <= term else (0, 0)

    # -- growing -------------------------------------------------------------------------------------------------

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries right after the last one."""
        self._entries += entries
        ends, end = self._ends, self._ends[-1]
        for entry in entries:
            end += len(entry.data) + ENTRY_OVERHEAD_BYTES
            ends.append(end)

    def maybe_append(self, prev_index: Index, prev_term: Term, entries: Sequence[Entry]) -> bool:
        """Make the log continue after ``prev_index`` as the leader's does, if it agrees there (Raft §5.3).

        Entries are removed only where they conflict: a late message must not shorten the log.
        """
        if self.term(prev_index) != prev_term:
            return False
        if prev_index < self.last_index:
            entries = self._without_known(entries)
        if entries:
            self._truncate_to(entries[0].index - 1)
            check(entries[0].index == self.last_index + 1, "entries follow on the log", index=entries[0].index)
            self.append(entries)
        return True

    def _without_known(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        for at, entry in enumerate(entries):
            if self.term(entry.index) != entry.term:
                return entries[at:]
        return ()

    def _truncate_to(self, index: Index) -> None:
        """Forget the entries after ``index``."""
        if index >= self.last_index:
            return
        check(index >= self.committed, "committed entries are never replaced", index=index, committed=self.committed)
        count = index - self._before[0]
        del self._entries[count:]
        del self._ends[count + 1 :]
        self.stable = min(self.stable, index)

    def reset(self, compacted: tuple[Index, Term]) -> None:
        """Begin anew after a snapshot that ends with ``compacted``; the caller makes the snapshot durable first."""
        check(compacted[0] > self.committed, "a snapshot leads forward", index=compacted[0], committed=self.committed)
        self._before = compacted
        self._entries = []
        self._ends = [0]
        self.begins_anew = True
        self.applied = self.stable = self.committed = compacted[0]

    # -- cursors -------------------------------------------------------------------------------------------------

    def stable_to(self, index: Index, term: Term) -> None:
        """This disk has all up to ``index``; ignored if that entry has been replaced meanwhile."""
        if self.term(index) == term:
            self.stable = max(self.stable, index)

    def commit_to(self, index: Index) -> None:
        """All up to ``index`` is committed. Commitment never goes back."""
        check(index <= self.last_index, "only entries that are here can be committed", index=index)
        self.committed = max(self.committed, index)

    def applied_to(self, index: Index) -> None:
        """The state machine has all up to ``index``."""
        check(self.applied <= index <= min(self.committed, self.stable), "applied trails committed", index=index)
        self.applied = index

    def compact(self, index: Index) -> None:
        """Forget entries up to ``index``, all of them applied. Already forgotten ones are fine."""
        if index < self.first_index:
            return
        check(index <= self.applied, "only applied entries are forgotten", index=index, applied=self.applied)
        term = self.term(index)
        check(term is not None, "a compacted entry was here", index=index)
        count = index - self._before[0]
        del self._entries[:count]
        del self._ends[:count]
        self._before = (index, term or 0)
