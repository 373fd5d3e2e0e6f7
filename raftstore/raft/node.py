"""One member's share of the Raft algorithm, as a state machine that is only ever told things.

The caller ticks it, proposes to it, steps the messages of other members into it, and in turn does what ``ready`` says,
in this order::

    ready = node.ready()
    send(ready.messages)                          # rely on nothing
    answer_reads(ready.read_states)               # each once its index is applied
    install(ready.snapshot)                       # durable before the log begins anew
    apply(ready.committed)                        # apply_conf_change for those entries that are one
    save(ready.log_start, ready.hard_state, ready.entries)   # in one write, durable before the next line
    send(ready.promises)                          # rely on it
    node.advance(ready)

Between ``ready`` and ``advance`` it may be ticked, stepped and proposed to; that work shows in the next ``ready``,
except that ``take_messages`` and ``take_read_states`` give what need not wait for this disk at any time: a leader's
entries are on their way to the followers while its own disk still works on those before.

Why membership may change on application (etcd-io/raft's manner) and not on appearance (Raft §6): a leader proposes a
change only after it has applied the one before, and every message with the later entry tells that the earlier is
committed, and both facts reach a disk together. So whoever has the later entry knows the earlier to be committed; and
nobody stands for election before having applied the changes he knows to be committed. Hence two candidates are never
more than one change apart, and any two quorums they can win share a voter.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from raftstore.errors import BadLeaderTransferee, NotLeader, check
from raftstore.raft.candidate import Candidate, PreCandidate
from raftstore.raft.confchange import ConfChange
from raftstore.raft.core import Config, Core, ReadOption, Role
from raftstore.raft.follower import Follower
from raftstore.raft.leader import Leader
from raftstore.raft.log import RaftLog
from raftstore.raft.message import (
    Message,
    MsgApp,
    MsgAppResp,
    MsgHeartbeat,
    MsgSnap,
    MsgVote,
    MsgVoteResp,
)
from raftstore.raft.progress import Progress
from raftstore.raft.types import ConfState, Entry, EntryKind, HardState, Index, MemberId, ReadState, Snapshot, Term

__all__ = ["Config", "Node", "ReadOption", "Ready", "Role"]


class Ready(NamedTuple):
    """Work for the caller; see the module's order."""

    hard_state: HardState | None
    """The hard state if it must be saved."""
    entries: list[Entry]
    """To be written to the log on disk. The first replaces what the disk has from its index on."""
    committed: list[Entry]
    """To be applied. They are durable here already."""
    messages: list[Message]
    """To be sent at once."""
    promises: list[Message]
    """To be sent after ``hard_state``, ``entries`` and ``snapshot`` are durable."""
    read_states: list[ReadState]
    """Reads that may be served once their index is applied."""
    snapshot: Snapshot | None
    """To replace the machine's state."""
    log_start: Index | None = None
    """The log on disk begins anew after this index, with ``entries``: all it has is void. To be saved with them."""


class Node(Core):
    """The core. ``term``, ``role``, ``leader``, ``conf_state`` and ``log`` may be read by the caller, never written.

    Only ``log.compact`` is the caller's: up to an index that a snapshot of the storage port contains.
    """

    def __init__(
        self, config: Config, log: RaftLog, hard_state: HardState, conf_state: ConfState | None = None
    ) -> None:
        """A member that restarts, or is born.

        Args:
            log: what disk and machine hold (``RaftLog.recover``).
            hard_state: the last one saved.
            conf_state: the membership at ``log.applied``, None if nothing is applied yet.
        """
        super().__init__(config, log, hard_state, conf_state or ConfState(config.voters))
        if log.last_term > self.term:  # it crashed between installing a snapshot and saving the term it came with
            self.term, self.vote = log.last_term, 0
        self.acting: Follower | Candidate | Leader
        self._saved = hard_state
        self._under_way = False
        self._held: list[Message] = []
        self._conf_index: Index = log.applied
        self.become_follower(self.term, 0)

    @property
    def role(self) -> Role:
        """The present role."""
        return self.acting.role

    @property
    def progress(self) -> Mapping[MemberId, Progress]:
        """What a leader knows about the others; empty for anybody else."""
        return self.acting.progress if isinstance(self.acting, Leader) else {}

    @property
    def transferee(self) -> MemberId:
        """To whom this leader is handing over, or 0."""
        return self.acting.transferee if isinstance(self.acting, Leader) else 0

    # -- input ---------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One unit of time passed."""
        self.acting.tick()

    def campaign(self, transfer: bool = False) -> None:
        """Stand for election now, unless this member leads, has no vote, or does not yet know the membership.

        ``transfer`` says that the leader wants it: no pre-vote, and no lease protects the leader.
        """
        if self.role is Role.LEADER or not self.is_promotable():
            return
        if self.config.pre_vote and not transfer:
            self.forget_leader()
            self.acting = PreCandidate(self)
            self.acting.ask()
        else:
            self.stand(transfer)

    def is_promotable(self) -> bool:
        return self.is_voter and self.pending_snapshot is None and not self.log.has_unapplied_conf_change()

    def step(self, message: Message) -> None:
        """A message of another member arrived."""
        if self._under_way and type(message) is MsgSnap:
            # What is being applied right now comes before the snapshot.
            self._held.append(message)
        elif self._accept_term(message):
            if type(message) is MsgVote:
                self._answer_vote(message)
            else:
                self.acting.step(message)

    def propose(self, commands: Iterable[bytes]) -> Index:
        """Append commands to the log in this term, or forward them to the leader.

        Returns the index of the last one, or 0 if they were forwarded: then it is not known whether they arrive.
        Raises NoLeader, or ProposalDropped; then surely none was taken.
        """
        return self.acting.propose([(command, EntryKind.COMMAND) for command in commands])

    def propose_conf_change(self, change: ConfChange) -> Index:
        """Likewise for a change of members. Raises ConfChangeRefused if another one is under way."""
        return self.acting.propose([(change.encode(), EntryKind.CONF_CHANGE)])

    def read_index(self, context: int = 0) -> Index | None:
        """What a linearizable read must wait to see applied (Raft §8).

        If this member can tell at once, it does: a lone voter, a leader with a lease. Otherwise None, and a ReadState
        with ``context`` follows unless a message is lost or leadership changes: ask again with a *new* context then.
        Without a context nothing follows. Contexts are the caller's and must not repeat, not even after a restart.
        Raises NoLeader if there is a context and nobody to ask.
        """
        return self.acting.read_index(context)

    def transfer_leadership(self, to: MemberId) -> None:
        """Hand leadership over; given up after an election timeout. Raises NotLeader, BadLeaderTransferee."""
        if not isinstance(self.acting, Leader):
            raise NotLeader("only the leader can hand over")
        if to == self.id:
            return
        if to not in self.quorum.voters:
            raise BadLeaderTransferee(f"{to:x} has no vote")
        self.acting.transfer_leadership(to)

    def report_unreachable(self, id: MemberId) -> None:
        """The transport has lost messages to ``id``."""
        if isinstance(self.acting, Leader):
            self.acting.report_unreachable(id)

    def report_snapshot(self, id: MemberId, arrived: bool) -> None:
        """The data of the MsgSnap to ``id`` have arrived there, or will not."""
        if isinstance(self.acting, Leader):
            self.acting.report_snapshot(id, arrived)

    def apply_conf_change(self, entry: Entry) -> ConfState:
        """A change of members is being applied; returns the membership, to be stored with ``entry.index`` as applied.

        To be called for each such entry of ``Ready.committed``, in order, before ``advance``.
        """
        check(entry.index > self._conf_index, "changes of members are applied once", index=entry.index)
        self._conf_index = entry.index
        self.use_conf_state(ConfChange.decode(entry.data).apply_to(self.conf_state))
        if isinstance(self.acting, Leader):
            self.acting.conf_state_changed()
        return self.conf_state

    # -- output --------------------------------------------------------------------------------------------------

    @property
    def hard_state(self) -> HardState:
        """The present hard state."""
        return HardState(self.term, self.vote, self.log.committed)

    def has_ready(self) -> bool:
        """Whether ``ready`` would hold work. A commit index alone is not worth a write."""
        log = self.log
        return bool(
            log.last_index > log.stable
            or min(log.committed, log.stable) > log.applied
            or self._saved[:2] != (self.term, self.vote)
            or self.outbox
            or self.promises
            or self.read_states
            or self.log.begins_anew
            or self.acting.wants_ready()
        )

    def ready(self) -> Ready:
        """The work there is now; each must be followed by ``advance``."""
        check(not self._under_way, "every ready is followed by advance")
        self._under_way = True
        entries, state = self.log.unstable(), self.hard_state
        worth_saving = state != self._saved and (entries or self.log.begins_anew or state[:2] != self._saved[:2])
        messages = self.take_messages()
        promises, self.outbox, self.promises = self.outbox + self.promises, [], []
        return Ready(
            state if worth_saving else None,
            entries,
            self.log.applicable(self.config.apply_bytes_max),
            messages,
            promises,
            self.take_read_states(),
            self.pending_snapshot,
            self.log.stable if self.log.begins_anew else None,
        )

    def take_messages(self) -> list[Message]:
        """Messages that need not wait for this member's disk; to be sent at once.

        Nothing leaves before the term it is of is durable: a lone voter leads its learners at once, and must not
        begin the same term again, with other entries, after a crash.
        """
        self.acting.before_ready()
        if self._saved[:2] != (self.term, self.vote):
            return []
        messages, self.outbox = self.outbox, []
        return messages

    def take_read_states(self) -> list[ReadState]:
        """Reads that may be served once their index is applied."""
        states, self.read_states = self.read_states, []
        return states

    def advance(self, ready: Ready) -> None:
        """``ready`` has been carried out."""
        self._under_way = False
        if ready.snapshot is not None:
            self.pending_snapshot = None
            self._conf_index = max(self._conf_index, ready.snapshot.index)
        if ready.log_start is not None:
            self.log.begins_anew = False
        if ready.hard_state is not None:
            self._saved = ready.hard_state
        if ready.committed:
            self._note_applied(ready.committed)
        if ready.entries:
            last = ready.entries[-1]
            self.log.stable_to(last.index, last.term)
        if isinstance(self.acting, Leader):
            self.acting.note_stable()
            self.acting.after_applying()
        held, self._held = self._held, []
        for message in held:
            self.step(message)

    def _note_applied(self, entries: list[Entry]) -> None:
        changes = [entry.index for entry in entries if entry.kind is EntryKind.CONF_CHANGE]
        check(not changes or changes[-1] == self._conf_index, "changes of members are applied", indexes=changes)
        self.log.applied_to(entries[-1].index)

    # -- terms ---------------------------------------------------------------------------------------------------

    def _accept_term(self, m: Message) -> bool:
        """Bring the terms together (Raft §5.1); whether the message is to be looked at."""
        if m.term > self.term:
            return self._meet_higher_term(m)
        if 0 < m.term < self.term:
            self._answer_lower_term(m)
            return False
        return True

    def _meet_higher_term(self, m: Message) -> bool:
        if type(m) is MsgVote:
            if not m.transfer and self._is_under_lease():
                return False  # a member that was cut off must not unseat a leader that others hear (thesis §4.2.3)
            if m.pre:
                return True  # that term has not begun
        elif type(m) is MsgVoteResp and m.pre and m.granted:
            return True  # nor has this one
        leads = type(m) in (MsgApp, MsgHeartbeat, MsgSnap)
        self.become_follower(m.term, m.sender if leads else 0)
        return True

    def _is_under_lease(self) -> bool:
        """Whether a leader was heard of so recently that no election can be needed."""
        recent = self.role is Role.LEADER or self.silence_ticks < self.config.election_ticks
        return self.config.check_quorum and recent

    def _answer_lower_term(self, m: Message) -> None:
        """Tell who is behind what term it is, where silence would leave it stuck."""
        if type(m) is MsgVote and m.pre:
            self.answer_vote(m, False, self.term)
        elif type(m) in (MsgApp, MsgHeartbeat) and (self.config.check_quorum or self.config.pre_vote):
            # A leader that nobody can unseat by a vote request, since leases and pre-votes make that rare.
            self.send(MsgAppResp(m.sender, self.id, self.term, 0))

    # -- elections -----------------------------------------------------------------------------------------------

    def _answer_vote(self, m: MsgVote) -> None:
        """One vote per term, and only for a log at least as new as ours (Raft §5.2, §5.4.1).

        A member that sees itself as a learner votes too: who asks may know better.
        """
        free = self.vote == m.sender or (self.vote == 0 and self.leader == 0)
        granted = (free or (m.pre and m.term > self.term)) and self.log.is_up_to_date(m.last_index, m.last_term)
        term = m.term if granted else self.term
        self.answer_vote(m, granted, term)
        if granted and not m.pre:
            self.vote = m.sender
            self.elapsed_ticks = 0

    def become_follower(self, term: Term, leader: MemberId) -> None:
        if term != self.term:
            check(term > self.term, "terms only grow", term=term, present=self.term)
            self.term, self.vote = term, 0
        self.forget_leader()
        self.leader = leader
        self.acting = Follower(self)

    def stand(self, transfer: bool) -> None:
        self.forget_leader()
        self.term += 1
        self.vote = self.id
        self.acting = candidate = Candidate(self)
        candidate.ask(transfer)

    def become_leader(self) -> None:
        self.forget_leader()
        self.leader = self.id
        self.silence_ticks = self.config.election_ticks  # once it stops leading, it has heard of nobody
        self.acting = leader = Leader(self)
        leader.begin_term()
