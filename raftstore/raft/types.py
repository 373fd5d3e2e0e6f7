"""The nouns of the Raft paper that cross the core's border."""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

Index = int
"""Position in the log, counted from 1. 0 is before the first entry."""

Term = int
"""Election period. 0 is before the first election."""

MemberId = int
"""Identity of a member, never given to another one. 0 is nobody."""


class EntryKind(IntEnum):
    """What an entry's data is. Numbers are on disk and on the wire: never reuse one."""

    COMMAND = 0
    """For the state machine. Without data it is the entry by which a leader begins its term (Raft §8)."""
    CONF_CHANGE = 1
    """An encoded ``ConfChange``: whoever applies it calls ``Node.apply_conf_change``."""


@dataclass(slots=True)
class Entry:
    """One entry of the log, never changed once made, so that logs and messages can share it."""

    index: Index
    term: Term
    data: bytes
    kind: EntryKind = EntryKind.COMMAND


class HardState(NamedTuple):
    """What must be durable before any message or answer that relies on it (Raft Figure 2, persistent state)."""

    term: Term = 0
    vote: MemberId = 0
    commit: Index = 0
    """Elections are safe across two membership changes only if this is saved together with the entries it came with."""


class ConfState(NamedTuple):
    """Who is in the cluster at some index. ``outgoing`` is empty except in a joint configuration (Raft §6)."""

    voters: frozenset[MemberId] = frozenset()
    learners: frozenset[MemberId] = frozenset()
    """They receive the log and do not count."""
    outgoing: frozenset[MemberId] = frozenset()
    """The voters before the change that is under way; both groups must agree until it is left."""
    learners_next: frozenset[MemberId] = frozenset()
    """Outgoing voters that will be learners once the joint configuration is left."""
    auto_leave: bool = False
    """Whether the leader leaves the joint configuration by itself."""

    @property
    def members(self) -> frozenset[MemberId]:
        """Everybody, whatever their part."""
        return self.voters | self.outgoing | self.learners

    @property
    def joint(self) -> bool:
        """Whether a change of several voters is under way."""
        return bool(self.outgoing)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a snapshot of the state machine contains, without its data, which travels outside the core."""

    index: Index
    term: Term
    conf_state: ConfState
    """As of ``index``."""


@dataclass(frozen=True, slots=True)
class ReadState:
    """A linearizable read may be served once ``index`` is applied (Raft §8)."""

    context: int
    """The number the read was asked for with."""
    index: Index
