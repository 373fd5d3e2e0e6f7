"""What members say to each other: one class per message of the Raft paper and thesis, never changed once made.

All begin with ``to``, ``sender`` and ``term``; a term of 0 means that the message is not of any term. The transport may
lose, delay and reorder messages, and duplicate all but ``MsgProp`` (its commands would happen twice).
"""

from dataclasses import dataclass

from raftstore.raft.types import Entry, EntryKind, Index, MemberId, Snapshot, Term


@dataclass(slots=True)
class Message:
    """What all messages have."""

    to: MemberId
    sender: MemberId
    term: Term


@dataclass(slots=True)
class MsgVote(Message):
    """RequestVote (Raft §5.2)."""

    last_index: Index
    last_term: Term
    pre: bool = False
    """Only asks whether the vote would be given in ``term``, which has not begun (thesis §9.6)."""
    transfer: bool = False
    """The leader itself wants this election, so its lease does not protect it (thesis §3.10)."""


@dataclass(slots=True)
class MsgVoteResp(Message):
    """The answer. A granted pre-vote carries the term it was asked for."""

    granted: bool
    pre: bool = False
    commit: Index = 0
    """What the sender knows to be committed, and the term of that entry: true for whoever has this entry, too."""
    commit_term: Term = 0


@dataclass(slots=True)
class MsgApp(Message):
    """AppendEntries (Raft §5.3)."""

    prev_index: Index
    prev_term: Term
    entries: list[Entry]
    """From ``prev_index + 1`` on, without a gap."""
    commit: Index


@dataclass(slots=True)
class MsgAppResp(Message):
    """The answer: the sender has all entries up to ``index`` durably, or has none like ours at ``index``."""

    index: Index
    rejected: bool = False
    hint_index: Index = 0
    """If rejected: the highest index at which the logs can agree, so far as the follower can tell ..."""
    hint_term: Term = 0
    """... and its term there."""


@dataclass(slots=True)
class MsgHeartbeat(Message):
    """A sign of life from the leader."""

    commit: Index
    """Never above what the follower is known to have."""
    round: int
    """Numbers the leader's heartbeats in its term; the answer repeats it, which proves leadership after it was sent."""


@dataclass(slots=True)
class MsgHeartbeatResp(Message):
    """The answer."""

    round: int


@dataclass(slots=True)
class MsgSnap(Message):
    """InstallSnapshot (Raft §7), without the data.

    The sending shell streams the state of its machine at (or after) ``snapshot.index`` beside it; the receiving shell
    steps this message once all data has arrived, with the metadata of what really arrived.
    """

    snapshot: Snapshot


@dataclass(slots=True)
class MsgTimeoutNow(Message):
    """Stand for election at once (thesis §3.10)."""


@dataclass(slots=True)
class MsgProp(Message):
    """Proposals forwarded to the leader."""

    proposals: list[tuple[bytes, EntryKind]]


@dataclass(slots=True)
class MsgReadIndex(Message):
    """Asks the leader for a read index (thesis §6.4)."""

    context: int


@dataclass(slots=True)
class MsgReadIndexResp(Message):
    """The answer."""

    context: int
    index: Index
