"""One member's share of the Raft algorithm, as a state machine that is only ever told things.

The caller ticks it, proposes to it, and in turn does what ``ready`` says, in this order::

    ready = node.ready()
    apply(ready.committed)               # any time
    save(ready.hard_state, ready.entries)  # durable before the next line
    node.advance(ready)

Between ``ready`` and ``advance`` it may be ticked and proposed to; that work shows in the next ``ready``. One voter is
all it knows so far: it elects itself and commits what its own disk holds. The majority arithmetic is already the
general one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from raftstore.errors import NotLeader, check
from raftstore.raft.log import RaftLog
from raftstore.raft.quorum import Vote, committed_index, count_votes
from raftstore.raft.types import Entry, HardState, Index, MemberId, Term


class Role(Enum):
    """Raft §5.1."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True)
class Config:
    """What a node needs to know and never changes.

    ``election_ticks`` is how many ticks without a leader start an election; ``spread_ticks`` is asked for a number to
    add each time, so that members do not all stand at once (Raft §5.2); the caller's dice.
    """

    id: MemberId
    voters: frozenset[MemberId]
    election_ticks: int = 10
    spread_ticks: Callable[[], int] = lambda: 0


class Ready(NamedTuple):
    """Work for the caller; see the module's order."""

    hard_state: HardState | None
    """The hard state if it differs from the last one handed out."""
    entries: list[Entry]
    """To be written to the log on disk."""
    committed: list[Entry]
    """To be applied."""


class Node:
    """The core. ``term``, ``role``, ``leader`` and ``log`` may be read by the caller, never written."""

    def __init__(self, config: Config, log: RaftLog, hard_state: HardState) -> None:
        check(config.voters == {config.id}, "this version runs one voter, itself", voters=sorted(config.voters))
        self.config = config
        self.log = log
        self.term: Term = hard_state.term
        self.vote: MemberId = hard_state.vote
        self.role = Role.FOLLOWER
        self.leader: MemberId = 0
        self._saved = hard_state
        self._votes: dict[MemberId, bool] = {}
        self._match: dict[MemberId, Index] = {}
        self._elapsed_ticks = 0
        self._timeout_ticks = config.election_ticks + config.spread_ticks()

    # -- input ---------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One unit of time passed."""
        self._elapsed_ticks += 1
        if self.role is not Role.LEADER and self._elapsed_ticks >= self._timeout_ticks:
            self.campaign()

    def campaign(self) -> None:
        """Stand for election in a new term (Raft §5.2)."""
        self.term += 1
        self.vote = self.config.id
        self.role = Role.CANDIDATE
        self.leader = 0
        self._elapsed_ticks = 0
        self._timeout_ticks = self.config.election_ticks + self.config.spread_ticks()
        self._votes = {self.config.id: True}
        self._maybe_win()

    def propose(self, commands: Iterable[bytes]) -> Index:
        """Append commands to the log in this term; returns the index of the last. Raises NotLeader."""
        if self.role is not Role.LEADER:
            raise NotLeader("only the leader appends")
        log, term = self.log, self.term
        start = log.last_index + 1
        log.append([Entry(index, term, data) for index, data in enumerate(commands, start)])
        return log.last_index

    def read_index(self) -> Index | None:
        """What a linearizable read must wait to see applied, or None when this node cannot promise (Raft §8).

        A leader must have committed an entry of its own term, and know that it still leads; a single voter does.
        """
        if self.role is not Role.LEADER or self.log.term(self.log.committed) != self.term:
            return None
        return self.log.committed

    # -- output --------------------------------------------------------------------------------------------------

    @property
    def hard_state(self) -> HardState:
        """The present hard state."""
        return HardState(self.term, self.vote, self.log.committed)

    def has_ready(self) -> bool:
        """Whether ``ready`` would hold work. A commit index alone is not worth a write."""
        log = self.log
        return (
            log.last_index > log.stable
            or min(log.committed, log.stable) > log.applied
            or self._saved[:2] != (self.term, self.vote)
        )

    def ready(self) -> Ready:
        """The work there is now."""
        entries, state = self.log.unstable(), self.hard_state
        worth_saving = state != self._saved and (entries or state[:2] != self._saved[:2])
        return Ready(state if worth_saving else None, entries, self.log.applicable())

    def advance(self, ready: Ready) -> None:
        """``ready`` has been carried out."""
        if ready.committed:
            self.log.applied_to(ready.committed[-1].index)
        if ready.hard_state is not None:
            self._saved = ready.hard_state
        if ready.entries:
            last = ready.entries[-1]
            self.log.stable_to(last.index, last.term)
            self._match[self.config.id] = self.log.stable
            self._maybe_commit()

    # -- rules ---------------------------------------------------------------------------------------------------

    def _maybe_win(self) -> None:
        if count_votes(self.config.voters, self._votes) is Vote.WON:
            self._become_leader()

    def _become_leader(self) -> None:
        self.role = Role.LEADER
        self.leader = self.config.id
        self._match = {self.config.id: self.log.stable}
        # An entry of the new term commits all before it (Raft §5.4.2, §8).
        self.propose([b""])

    def _maybe_commit(self) -> None:
        """Commit what a majority holds, but count only entries of this term (Raft §5.4.2, Figure 8)."""
        index = committed_index(self.config.voters, self._match)
        if self.role is Role.LEADER and index > self.log.committed and self.log.term(index) == self.term:
            self.log.commit_to(index)
