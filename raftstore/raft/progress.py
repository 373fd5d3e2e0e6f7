"""What a leader knows about one follower, and how much it may have on the way to it.

::

            reject / unreachable            ack
    REPLICATE ---------------> PROBE ----------------> REPLICATE
                                 |  ^
              entries compacted  v  |  installed, or failed
                               SNAPSHOT
"""

from collections import deque
from enum import Enum

from raftstore.errors import check
from raftstore.raft.types import Index


class ProgressState(Enum):
    """How entries are sent."""

    PROBE = "probe"
    """The follower's log is not known: one message at a time, to find where it agrees with ours."""
    REPLICATE = "replicate"
    """It is known: messages follow each other without waiting, within the bounds of ``Inflights``."""
    SNAPSHOT = "snapshot"
    """It is behind what we still have: nothing is sent until it has installed the snapshot."""


class Inflights:
    """Messages sent and not acknowledged, bounded in number and bytes."""

    __slots__ = ("_bytes", "_bytes_max", "_count_max", "_sent")

    def __init__(self, count_max: int, bytes_max: int) -> None:
        """``bytes_max`` 0 is no bound."""
        self._sent: deque[tuple[Index, int]] = deque()
        self._bytes = 0
        self._count_max = count_max
        self._bytes_max = bytes_max

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def full(self) -> bool:
        """Whether nothing more may be sent. One message may exceed the bytes, or a big entry could never leave."""
        return len(self._sent) >= self._count_max or 0 < self._bytes_max <= self._bytes

    def add(self, last: Index, size_bytes: int) -> None:
        """A message whose last entry is ``last`` was sent."""
        self._sent.append((last, size_bytes))
        self._bytes += size_bytes

    def free_to(self, index: Index) -> None:
        """All messages up to ``index`` have arrived."""
        sent = self._sent
        while sent and sent[0][0] <= index:
            self._bytes -= sent.popleft()[1]

    def clear(self) -> None:
        """Forget all."""
        self._sent.clear()
        self._bytes = 0


class Progress:
    """One follower in the leader's eyes.

    Invariant: match < next. In REPLICATE all in [match + 1, next) is on the way; in PROBE at most one message is.
    """

    __slots__ = (
        "acked_round",
        "inflights",
        "match",
        "next",
        "paused",
        "pending_snapshot",
        "recent_active",
        "sent_commit",
        "state",
    )

    def __init__(self, next: Index, inflights: Inflights) -> None:
        self.match: Index = 0
        """It is known to have all up to here, durably."""
        self.next: Index = next
        """The first entry to send."""
        self.state = ProgressState.PROBE
        self.paused = False
        """Wait for the next sign of life before sending more."""
        self.pending_snapshot: Index = 0
        self.recent_active = True
        """It was heard of since the last check of the quorum."""
        self.inflights = inflights
        self.sent_commit: Index = 0
        """The highest commit index it was told by a message with entries before it."""
        self.acked_round = 0
        """The latest round of heartbeats it answered."""

    @property
    def is_paused(self) -> bool:
        """Whether nothing may be sent now."""
        return self.paused or self.state is ProgressState.SNAPSHOT

    @property
    def full(self) -> bool:
        """Whether no entries may be sent now."""
        return self.state is ProgressState.REPLICATE and self.inflights.full

    def become_probe(self) -> None:
        """Find out anew where the logs agree, right behind what is certain."""
        at = max(self.match, self.pending_snapshot) if self.state is ProgressState.SNAPSHOT else self.match
        self._reset(ProgressState.PROBE)
        self.next = at + 1

    def become_replicate(self) -> None:
        """The logs agree up to ``match``: stream."""
        self._reset(ProgressState.REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, index: Index) -> None:
        """A snapshot at ``index`` is on the way."""
        self._reset(ProgressState.SNAPSHOT)
        self.pending_snapshot = index
        self.next = index + 1

    def _reset(self, state: ProgressState) -> None:
        self.state = state
        self.paused = False
        self.pending_snapshot = 0
        self.sent_commit = 0
        self.inflights.clear()

    def sent(self, count: int, size_bytes: int) -> None:
        """A message with ``count`` entries from ``next`` on was sent."""
        if self.state is not ProgressState.REPLICATE:
            self.paused = True
        elif count:
            self.next += count
            self.inflights.add(self.next - 1, size_bytes)

    def maybe_update(self, index: Index) -> bool:
        """The follower has all up to ``index``; whether that is news."""
        self.next = max(self.next, index + 1)
        if index <= self.match:
            return False
        self.match = index
        self.paused = False
        check(self.match < self.next, "match is below next", match=self.match, next=self.next)
        return True

    def maybe_back_off(self, rejected: Index, hint: Index) -> bool:
        """The follower has no entry like ours at ``rejected``, but may agree at ``hint``; whether that is news."""
        if self.state is ProgressState.REPLICATE:
            return rejected > self.match  # else it was overtaken by an acknowledgement
        if self.next - 1 != rejected:
            return False  # it answers another probe than the last one
        self.next = max(min(rejected, hint + 1), self.match + 1)
        self.paused = False
        return True
