"""The nouns of the Raft paper that cross the core's border."""

from dataclasses import dataclass
from typing import NamedTuple

Index = int
"""Position in the log, counted from 1. 0 is before the first entry."""

Term = int
"""Election period. 0 is before the first election."""

MemberId = int
"""Identity of a member; 0 is nobody."""


@dataclass(slots=True)
class Entry:
    """One entry of the log, never changed. Empty ``data`` is the entry by which a leader begins its term (Raft §8)."""

    index: Index
    term: Term
    data: bytes


class HardState(NamedTuple):
    """What must be durable before any message or answer that relies on it (Raft Figure 2, persistent state)."""

    term: Term = 0
    vote: MemberId = 0
    commit: Index = 0
    """Not needed for safety, but it lets a restarted member apply at once."""
