"""Arithmetic of majorities. Knows only ids and numbers."""

from collections.abc import Collection, Mapping
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
    ascending = sorted(match.get(voter, 0) for voter in voters)
    return ascending[len(voters) - majority(voters)]


def count_votes(voters: Collection[int], votes: Mapping[int, bool]) -> Vote:
    """Whether the votes cast so far decide the election."""
    needed = majority(voters)
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    if granted >= needed:
        return Vote.WON
    return Vote.LOST if len(voters) - refused < needed else Vote.PENDING
