"""Linearizable reads without the log: prove leadership after the read was asked for (thesis §6.4).

Every broadcast of heartbeats is a numbered round. A read joins the next round; once a quorum has answered that round
or a later one, this leader still led after the read arrived, and the commit index of that moment is safe to read at.
Any number of reads shares a round, and which round a quorum has answered is the arithmetic of commitment again.
"""

from collections import deque
from dataclasses import dataclass

from raftstore.raft.types import Index, MemberId


@dataclass(frozen=True, slots=True)
class PendingRead:
    """A read that waits for its round."""

    round: int
    index: Index
    member: MemberId
    """Who asked."""
    context: int


class ReadQueue:
    """The reads and rounds of one leader's term."""

    __slots__ = ("_early", "_pending", "_sent", "confirmed_tick", "round")

    def __init__(self) -> None:
        self.round = 0
        """The latest round that was sent."""
        self.confirmed_tick = -1
        """When (in the leader's ticks) the latest round that a quorum answered was sent; -1 if none was."""
        self._sent: deque[tuple[int, int]] = deque()
        self._early: list[tuple[MemberId, int]] = []
        self._pending: deque[PendingRead] = deque()

    @property
    def waits_for_round(self) -> bool:
        """Whether some read needs a round that has not been sent."""
        return bool(self._pending) and self._pending[-1].round > self.round

    def add_early(self, member: MemberId, context: int) -> None:
        """A read arrived before the leader has committed an entry of its term: it does not know the commit index."""
        self._early.append((member, context))

    def take_early(self) -> list[tuple[MemberId, int]]:
        """The early reads, which can now be added."""
        early, self._early = self._early, []
        return early

    def add(self, member: MemberId, context: int, index: Index) -> None:
        """A read arrived while ``index`` was committed."""
        self._pending.append(PendingRead(self.round + 1, index, member, context))

    def begin_round(self, tick: int) -> int:
        """Number the heartbeats that are sent now."""
        self.round += 1
        self._sent.append((self.round, tick))
        return self.round

    def confirm(self, round: int) -> list[PendingRead]:
        """A quorum has answered ``round``: the reads that may be served."""
        while self._sent and self._sent[0][0] <= round:
            self.confirmed_tick = self._sent.popleft()[1]
        served = []
        while self._pending and self._pending[0].round <= round:
            served.append(self._pending.popleft())
        return served
