"""Arithmetic of majorities, alone and joint. Knows only ids and numbers."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum


class Vote(Enum):
    """Outcome of a count of votes."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def majority(voters: Collection[int]) -> int:
    """The smallest number of voters that any two such groups share a member of."""
    return len(voters) // 2 + 1


def committed_index(voters: Collection[int], match: Mapping[int, int]) -> int:
    """The highest index that a majority of ``voters`` has, by ``match``; who is not in it has nothing."""
    ascending = sorted([match.get(voter, 0) for voter in voters])
    return ascending[len(voters) - majority(voters)]


def count_votes(voters: Collection[int], votes: Mapping[int, bool]) -> Vote:
    """Whether the votes cast so far decide the election."""
    needed = majority(voters)
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    if granted >= needed:
        return Vote.WON
    return Vote.LOST if len(voters) - refused < needed else Vote.PENDING


@dataclass(frozen=True, slots=True)
class JointQuorum:
    """The voters whose majority decides; while membership changes, the majorities of two groups (Raft §6)."""

    incoming: frozenset[int]
    outgoing: frozenset[int] = frozenset()

    @property
    def voters(self) -> frozenset[int]:
        """Everybody who has a vote."""
        return self.incoming | self.outgoing

    def committed_index(self, match: Mapping[int, int]) -> int:
        """The highest index that every group's majority has; 0 without voters: nobody can decide."""
        if not self.incoming:
            return 0
        index = committed_index(self.incoming, match)
        return min(index, committed_index(self.outgoing, match)) if self.outgoing else index

    def count_votes(self, votes: Mapping[int, bool]) -> Vote:
        """Whether the votes decide: every group must be won, one lost is enough to lose."""
        if not self.incoming:
            return Vote.LOST
        counts = {count_votes(group, votes) for group in (self.incoming, self.outgoing) if group}
        if Vote.LOST in counts:
            return Vote.LOST
        return Vote.PENDING if Vote.PENDING in counts else Vote.WON

    def is_active(self, active: Collection[int]) -> bool:
        """Whether the voters in ``active`` alone could decide."""
        return self.count_votes(dict.fromkeys(active, True)) is Vote.WON
