"""What a member is in every role: its term, its vote, its log, its view of the membership, and its outgoing messages.

Roles are objects (``follower.py``, ``candidate.py``, ``leader.py``) that act on this state and end with their role, so
that nothing a leader knew can outlive its term. ``node.py`` changes from one to another.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from raftstore.errors import NoLeader
from raftstore.raft.log import RaftLog
from raftstore.raft.message import Message, MsgAppResp, MsgVote, MsgVoteResp
from raftstore.raft.quorum import JointQuorum
from raftstore.raft.types import ConfState, EntryKind, HardState, Index, MemberId, ReadState, Snapshot, Term

Proposal = tuple[bytes, EntryKind]


class Role(Enum):
    """Raft §5.1, and the pre-candidate of thesis §9.6."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class ReadOption(Enum):
    """How a leader makes sure that it still leads before it lets a read through."""

    SAFE = "safe"
    """It asks a quorum."""
    LEASE = "lease"
    """It trusts that ticks pass equally fast everywhere, within ``lease_ticks`` : ``election_ticks``, and that nobody
    votes within ``election_ticks`` of having heard of it (thesis §6.4.1). Needs ``check_quorum`` on all members."""


@dataclass(frozen=True)
class Config:
    """What a node needs to know and never changes. Times are ticks, sizes bytes; 0 bytes is no bound."""

    id: MemberId
    voters: frozenset[MemberId] = frozenset()
    """The members before the first entry of the log. Empty when the log itself begins with them (``bootstrap``)."""
    election_ticks: int = 10
    """Ticks without a leader that start an election."""
    spread_ticks: Callable[[], int] = lambda: 0
    """Asked for a number to add each time, so that members do not all stand at once (Raft §5.2); the caller's dice."""
    heartbeat_ticks: int = 1
    pre_vote: bool = True
    check_quorum: bool = True
    """A leader that hears of no quorum for ``election_ticks`` steps down, and nobody votes within that time of having
    heard of a leader, so that a member who was cut off cannot disrupt the others (thesis §4.2.3, §6.2)."""
    read_option: ReadOption = ReadOption.SAFE
    lease_ticks: int = 0
    """How long a leader trusts a quorum's answer with ReadOption.LEASE; 0 stands for half of ``election_ticks``."""
    message_bytes_max: int = 1 << 20
    """Entries in one message; a single bigger entry still travels."""
    inflight_messages_max: int = 256
    inflight_bytes_max: int = 16 << 20
    """Both per follower."""
    uncommitted_bytes_max: int = 64 << 20
    apply_bytes_max: int = 16 << 20
    """Entries handed out to be applied in one ``Ready``."""
    snapshot: Callable[[], Snapshot | None] = lambda: None
    """The storage port: a snapshot that the caller can send now, or None (it will be asked again)."""


class Acting(ABC):
    """A member in one role. The term is the message's own when ``step`` is called."""

    role: ClassVar[Role]
    handlers: ClassVar[dict[type, Callable[[Any, Any], None]]]
    """What the role does about each class of message; it ignores the others."""

    def __init__(self, core: "Core") -> None:
        self.core = core

    @abstractmethod
    def tick(self) -> None:
        """One unit of time passed."""

    def step(self, message: Message) -> None:
        """A message of this term, or of none, arrived."""
        handler = self.handlers.get(type(message))
        if handler is not None:
            handler(self, message)

    def propose(self, proposals: Sequence[Proposal]) -> Index:
        """See ``Node.propose``."""
        raise NoLeader("this member knows no leader to propose to")

    def read_index(self, context: int) -> Index | None:
        """See ``Node.read_index``."""
        if context:
            raise NoLeader("this member knows no leader to ask")
        return None

    def wants_ready(self) -> bool:
        """Whether ``before_ready`` would add messages."""
        return False

    def before_ready(self) -> None:  # noqa: B027 (most roles hold nothing back)
        """The caller is about to take messages: add what was held back to go out together."""


class Core(ABC):
    """State common to all roles, and what all of them do with it."""

    acting: Acting
    """The present role."""

    def __init__(self, config: Config, log: RaftLog, hard_state: HardState, conf_state: ConfState) -> None:
        self.config = config
        self.id = config.id
        self.log = log
        self.term: Term = hard_state.term
        self.vote: MemberId = hard_state.vote
        self.leader: MemberId = 0
        self.elapsed_ticks = 0
        """Since the leader was last heard of, a vote was given, or an election begun."""
        self.timeout_ticks = 0
        # With lease reads, who has just restarted must assume that he has forgotten a leader.
        self.silence_ticks = 0 if config.read_option is ReadOption.LEASE else config.election_ticks
        """Since any leader was last heard of, whatever happened since."""
        self.outbox: list[Message] = []
        """Messages that rely on nothing that is not durable."""
        self.promises: list[Message] = []
        """Messages that must wait for the entries and the hard state."""
        self.read_states: list[ReadState] = []
        self.pending_snapshot: Snapshot | None = None
        self.use_conf_state(conf_state)

    # -- transitions, by Node ------------------------------------------------------------------------------------

    @abstractmethod
    def become_follower(self, term: Term, leader: MemberId) -> None:
        """Follow ``leader`` (0: nobody yet) in ``term``."""

    @abstractmethod
    def become_leader(self) -> None:
        """An election of the present term is won."""

    @abstractmethod
    def campaign(self, transfer: bool = False) -> None:
        """Stand for election, if this member may."""

    @abstractmethod
    def stand(self, transfer: bool) -> None:
        """Begin the real election, after the pre-vote if there was one."""

    @abstractmethod
    def is_promotable(self) -> bool:
        """Whether this member may stand: it has a vote and has applied every change of members it knows of."""

    # -- common acts ---------------------------------------------------------------------------------------------

    def use_conf_state(self, conf_state: ConfState) -> None:
        """This is the membership from now on."""
        self.conf_state = conf_state
        self.quorum = JointQuorum(conf_state.voters, conf_state.outgoing)

    @property
    def is_voter(self) -> bool:
        """Whether this member has a vote in its own view."""
        return self.id in self.conf_state.voters or self.id in self.conf_state.outgoing

    def send(self, message: Message) -> None:
        """Send now, or with what must be durable first.

        An acknowledgement or a vote is a promise that a crash must not break. A vote request is one too: it tells how
        our log ends, and its answers count for whatever log we have when they arrive.
        """
        (self.promises if type(message) in _PROMISES else self.outbox).append(message)

    def answer_vote(self, message: MsgVote, granted: bool, term: Term) -> None:
        """Grant or refuse, and tell what is committed.

        Without the latter two members could block each other for ever: one that is removed, knows it, and has the
        longer log; and one that needs the vote of the former, because it does not know that the removal is committed.
        """
        log = self.log
        commit_term = log.term(log.committed) or 0
        self.send(MsgVoteResp(message.sender, self.id, term, granted, message.pre, log.committed, commit_term))

    def forget_leader(self) -> None:
        """Restart the election clock with a new draw, in a term whose leader is not known."""
        self.leader = 0
        self.elapsed_ticks = 0
        self.timeout_ticks = self.config.election_ticks + self.config.spread_ticks()


_PROMISES: frozenset[type] = frozenset({MsgAppResp, MsgVote, MsgVoteResp})
