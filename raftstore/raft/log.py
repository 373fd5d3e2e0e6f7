"""The log as Raft sees it: a run of entries in memory and three cursors along it.

::

    compacted | first ........ applied ........ committed ........ last
                      stable (on this disk) lies anywhere from applied to last
"""

from collections.abc import Iterable

from raftstore.errors import check
from raftstore.raft.types import Entry, Index, Term


class RaftLog:
    """Entries ``[first_index, last_index]`` and what is known about them."""

    def __init__(self, compacted: tuple[Index, Term], entries: Iterable[Entry], commit: Index = 0) -> None:
        """A log read back from disk.

        Args:
            compacted: index and term of the entry before the first one; all up to it are applied.
            entries: what the disk holds after that, contiguous.
            commit: the commit index last recorded.
        """
        self._before = compacted
        self._entries = list(entries)
        # Invariant: applied <= min(committed, stable) and committed <= last_index.
        self.applied: Index = compacted[0]
        self.stable: Index = self.last_index
        self.committed: Index = min(max(commit, compacted[0]), self.last_index)

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

    def term(self, index: Index) -> Term | None:
        """Term of the entry at ``index``, or None if it is compacted or not there yet."""
        if index == self._before[0]:
            return self._before[1]
        at = index - self.first_index
        return self._entries[at].term if 0 <= at < len(self._entries) else None

    def slice(self, lo: Index, hi: Index) -> list[Entry]:
        """Entries ``[lo, hi)``, all of which must be here."""
        first = self.first_index
        check(first <= lo <= hi <= self.last_index + 1, "slice lies within the log", lo=lo, hi=hi, first=first)
        return self._entries[lo - first : hi - first]

    def append(self, entries: Iterable[Entry]) -> None:
        """Add entries right after the last one."""
        self._entries.extend(entries)

    def unstable(self) -> list[Entry]:
        """Entries not yet on this disk."""
        return self.slice(self.stable + 1, self.last_index + 1)

    def applicable(self) -> list[Entry]:
        """Entries that are committed and on this disk, and not yet applied."""
        return self.slice(self.applied + 1, max(self.applied, min(self.committed, self.stable)) + 1)

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
        del self._entries[: index - self._before[0]]
        self._before = (index, term or 0)
