"""A leader: replicates its log, decides what is committed, proves that it still leads, changes the membership.

Messages with entries are not sent when something is proposed but when the caller comes for them, so that all proposals
that gathered meanwhile share one message per follower.
"""

from collections.abc import Sequence
from typing import ClassVar

from raftstore.errors import check
from raftstore.raft.confchange import ConfChange
from raftstore.raft.core import Acting, Core, Proposal, ReadOption, Role
from raftstore.raft.errors import ConfChangeRefused, ProposalDropped
from raftstore.raft.log import ENTRY_OVERHEAD_BYTES
from raftstore.raft.message import (
    Message,
    MsgApp,
    MsgAppResp,
    MsgHeartbeat,
    MsgHeartbeatResp,
    MsgProp,
    MsgReadIndex,
    MsgReadIndexResp,
    MsgSnap,
    MsgTimeoutNow,
)
from raftstore.raft.progress import Inflights, Progress, ProgressState
from raftstore.raft.read import PendingRead, ReadQueue
from raftstore.raft.types import Entry, EntryKind, Index, MemberId, ReadState


class Leader(Acting):
    """All that only a leader knows, for the length of its term."""

    role = Role.LEADER

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self.progress: dict[MemberId, Progress] = {}
        """Every other member."""
        self.reads = ReadQueue()
        self.transferee: MemberId = 0
        """Who is to lead next; nothing is appended until then."""
        # A change of members may be proposed only when all such entries before it are applied. Which of the entries
        # inherited from former leaders are such is not looked up: this is a safe guess.
        self.pending_conf_index: Index = core.log.last_index
        self._match: dict[MemberId, Index] = {}
        self._broadcast_due = False
        self._ticks = 0
        self._quorum_ticks = 0
        self._lease_lost = False
        self._note_stable(core.log.stable)
        self._track_members()

    def begin_term(self) -> None:
        """An entry of the new term commits all before it (Raft §5.4.2, §8)."""
        self._append([(b"", EntryKind.COMMAND)])
        self.before_ready()

    # -- time ----------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        self._ticks += 1
        self._quorum_ticks += 1
        if self._quorum_ticks >= self.core.config.election_ticks:
            self._quorum_ticks = 0
            self.transferee = 0  # it did not take over in time: go on leading (thesis §3.10)
            if self.core.config.check_quorum and not self._quorum_is_active():
                self.core.become_follower(self.core.term, 0)
                return
        if self._ticks % self.core.config.heartbeat_ticks == 0:
            self._send_heartbeats()

    def _quorum_is_active(self) -> bool:
        """Whether a quorum was heard of since the last time (thesis §6.2)."""
        active = [id for id, progress in self.progress.items() if progress.recent_active]
        for progress in self.progress.values():
            progress.recent_active = False
        return self.core.quorum.is_active([self.core.id, *active])

    def _send_heartbeats(self) -> None:
        core, round = self.core, self.reads.begin_round(self._ticks)
        for id, progress in self.progress.items():
            # The commit index must not be ahead of what the follower has: it would commit entries that differ.
            commit = min(progress.match, core.log.committed)
            core.send(MsgHeartbeat(id, core.id, core.term, commit, round))
        self._confirm_reads()

    # -- proposals -----------------------------------------------------------------------------------------------

    def propose(self, proposals: Sequence[Proposal]) -> Index:
        """Append; refused as a whole or taken as a whole."""
        core = self.core
        if self.transferee:
            raise ProposalDropped("leadership is being handed over")
        self._check_room(proposals)
        pending = self.pending_conf_index
        for at, (data, kind) in enumerate(proposals, core.log.last_index + 1):
            if kind is EntryKind.CONF_CHANGE:
                self._check_conf_change(ConfChange.decode(data), pending)
                pending = at
        self.pending_conf_index = pending
        return self._append(proposals)

    def _check_room(self, proposals: Sequence[Proposal]) -> None:
        """Bound what is not committed. One proposal always fits when there is nothing else, however big."""
        bytes_max, uncommitted = self.core.config.uncommitted_bytes_max, self.core.log.uncommitted_bytes
        if bytes_max and uncommitted:
            size = sum([len(data) for data, _ in proposals]) + ENTRY_OVERHEAD_BYTES * len(proposals)
            if uncommitted + size > bytes_max:
                raise ProposalDropped(f"{uncommitted} bytes are proposed and not confirmed by a majority yet")

    def _check_conf_change(self, change: ConfChange, pending: Index) -> None:
        core = self.core
        if pending > core.log.applied:
            raise ConfChangeRefused("another change of members is under way")
        if core.log.term(core.log.committed) != core.term:
            raise ConfChangeRefused("this leader has not committed an entry yet")
        change.apply_to(core.conf_state)

    def _append(self, proposals: Sequence[Proposal]) -> Index:
        log, term = self.core.log, self.core.term
        start = log.last_index + 1
        log.append([Entry(index, term, data, kind) for index, (data, kind) in enumerate(proposals, start)])
        self._broadcast_due = bool(self.progress)
        return log.last_index

    def on_proposals(self, m: MsgProp) -> None:
        """A follower forwards; if they are refused it hears nothing, and its callers give up in time."""
        try:
            self.propose(m.proposals)
        except (ProposalDropped, ConfChangeRefused):
            pass

    # -- replication ---------------------------------------------------------------------------------------------

    def wants_ready(self) -> bool:
        return self._broadcast_due or self.reads.waits_for_round

    def before_ready(self) -> None:
        if self._broadcast_due:
            self._broadcast_due = False
            for id, progress in self.progress.items():
                # Without entries it is worth a message only to tell of commitment.
                self._send_appends(id, progress, progress.sent_commit < min(self.core.log.committed, progress.next - 1))
        if self.reads.waits_for_round:
            self._send_heartbeats()

    def _send_appends(self, id: MemberId, progress: Progress, even_empty: bool) -> None:
        """Send as much as the follower's window takes."""
        while self._maybe_send_append(id, progress, even_empty):
            even_empty = False

    def _maybe_send_append(self, id: MemberId, progress: Progress, even_empty: bool) -> bool:
        """Send one message; whether a further one may follow."""
        if progress.is_paused:
            return False
        core, log = self.core, self.core.log
        prev = progress.next - 1
        prev_term = log.term(prev)
        if prev_term is None:
            self._maybe_send_snapshot(id, progress)
            return False
        if progress.full:
            entries: list[Entry] = []
        else:
            entries = log.slice(progress.next, log.last_index + 1, core.config.message_bytes_max)
        if not entries and not even_empty:
            return False
        core.send(MsgApp(id, core.id, core.term, prev, prev_term, entries, log.committed))
        progress.sent_commit = min(log.committed, prev + len(entries))
        progress.sent(len(entries), log.size_bytes(prev + 1, prev + 1 + len(entries)))
        return bool(entries)

    def _maybe_send_snapshot(self, id: MemberId, progress: Progress) -> None:
        """The follower needs entries that are compacted."""
        if not progress.recent_active:
            return
        snapshot = self.core.config.snapshot()
        if snapshot is None or snapshot.index < self.core.log.first_index - 1:
            return
        check(snapshot.index <= self.core.log.committed, "a snapshot holds what is committed", index=snapshot.index)
        progress.become_snapshot(snapshot.index)
        self.core.send(MsgSnap(id, self.core.id, self.core.term, snapshot))

    def on_append_response(self, m: MsgAppResp) -> None:
        """A follower has acknowledged or refused entries."""
        progress = self.progress.get(m.sender)
        if progress is None:
            return  # removed meanwhile
        progress.recent_active = True
        if m.rejected:
            self._on_rejection(m, progress)
        else:
            self._on_acknowledgement(m, progress)

    def _on_rejection(self, m: MsgAppResp, progress: Progress) -> None:
        # Both sides skip what cannot agree: the follower has named its last entry that we may have; ours at or before
        # that place with a term as low is the next candidate (Raft §5.3, last paragraphs).
        hint = m.hint_index
        if m.hint_term:
            hint, _ = self.core.log.agreement_hint(m.hint_index, m.hint_term)
        if progress.maybe_back_off(m.index, hint):
            if progress.state is ProgressState.REPLICATE:
                progress.become_probe()
            self._send_appends(m.sender, progress, even_empty=True)

    def _on_acknowledgement(self, m: MsgAppResp, progress: Progress) -> None:
        log = self.core.log
        check(m.index <= log.last_index, "only what was sent is acknowledged", index=m.index, member=m.sender)
        # The answer to a probe right behind the match index proves agreement too, though it is no news.
        agrees = progress.state is ProgressState.PROBE and m.index == progress.match == progress.next - 1
        if not progress.maybe_update(m.index) and not agrees:
            return
        self._match[m.sender] = progress.match
        if progress.state is ProgressState.PROBE:
            progress.become_replicate()
        elif progress.state is ProgressState.SNAPSHOT:
            if progress.match + 1 >= log.first_index:  # what it needs next is here, installed or not
                progress.become_replicate()
        else:
            progress.inflights.free_to(m.index)
        self._maybe_commit()
        self._send_appends(m.sender, progress, even_empty=False)
        self._maybe_hand_over()

    def note_stable(self) -> None:
        """Our own disk has more of the log: we are one of the majority."""
        self._note_stable(self.core.log.stable)
        self._maybe_commit()

    def _note_stable(self, index: Index) -> None:
        self._match[self.core.id] = index

    def _maybe_commit(self) -> None:
        """Commit what a majority holds, but count only entries of this term (Raft §5.4.2, Figure 8)."""
        log = self.core.log
        index = self.core.quorum.committed_index(self._match)
        if index > log.committed and log.term(index) == self.core.term:
            log.commit_to(index)
            self._broadcast_due = bool(self.progress)
            for member, context in self.reads.take_early():
                self._add_read(member, context)

    def report_unreachable(self, id: MemberId) -> None:
        """The transport has lost messages to ``id``: those on the way cannot be counted on."""
        progress = self.progress.get(id)
        if progress is not None and progress.state is ProgressState.REPLICATE:
            progress.become_probe()

    def report_snapshot(self, id: MemberId, arrived: bool) -> None:
        """The transport has delivered the snapshot to ``id``, or failed to."""
        progress = self.progress.get(id)
        if progress is not None and progress.state is ProgressState.SNAPSHOT:
            if not arrived:
                progress.pending_snapshot = 0
            progress.become_probe()
            progress.paused = True  # until it acknowledges, or the next heartbeat is answered

    # -- reads ---------------------------------------------------------------------------------------------------

    def read_index(self, context: int) -> Index | None:
        index = self._certain_read_index()
        if index is None and context:
            self._add_read(self.core.id, context)
        return index

    def _certain_read_index(self) -> Index | None:
        """The read index if leadership is certain right now."""
        log = self.core.log
        if log.term(log.committed) != self.core.term:
            return None
        return log.committed if self._is_alone or self._holds_lease else None

    @property
    def _is_alone(self) -> bool:
        return self.core.quorum.voters == {self.core.id}

    @property
    def _holds_lease(self) -> bool:
        """A quorum answered heartbeats sent so recently that none of it can have voted for another yet.

        Not once leadership was offered to another: the offer lifts the protection, and may arrive late.
        """
        config = self.core.config
        if config.read_option is not ReadOption.LEASE or self._lease_lost or self.reads.confirmed_tick < 0:
            return False
        return self._ticks - self.reads.confirmed_tick < (config.lease_ticks or config.election_ticks // 2)

    def _add_read(self, member: MemberId, context: int) -> None:
        log = self.core.log
        if log.term(log.committed) != self.core.term:
            self.reads.add_early(member, context)
        else:
            self.reads.add(member, context, log.committed)

    def on_read_index(self, m: MsgReadIndex) -> None:
        """A follower asks on behalf of its clients."""
        index = self._certain_read_index()
        if index is None:
            self._add_read(m.sender, m.context)
        else:
            self._serve_read(PendingRead(0, index, m.sender, m.context))

    def on_heartbeat_response(self, m: MsgHeartbeatResp) -> None:
        """A follower is alive; what it missed is sent again."""
        progress = self.progress.get(m.sender)
        if progress is None:
            return
        progress.recent_active = True
        progress.paused = False
        if m.round > progress.acked_round:
            progress.acked_round = m.round
            self._confirm_reads()
        if progress.match < self.core.log.last_index or progress.state is ProgressState.PROBE:
            self._send_appends(m.sender, progress, even_empty=True)

    def _confirm_reads(self) -> None:
        acked = {id: progress.acked_round for id, progress in self.progress.items()}
        acked[self.core.id] = self.reads.round
        for read in self.reads.confirm(self.core.quorum.committed_index(acked)):
            self._serve_read(read)

    def _serve_read(self, read: PendingRead) -> None:
        core = self.core
        if read.member == core.id:
            core.read_states.append(ReadState(read.context, read.index))
        else:
            core.send(MsgReadIndexResp(read.member, core.id, core.term, read.context, read.index))

    # -- handing over --------------------------------------------------------------------------------------------

    def transfer_leadership(self, to: MemberId) -> None:
        """See ``Node.transfer_leadership``."""
        self.transferee = to
        self._quorum_ticks = 0  # it has one election timeout
        progress = self.progress[to]
        if not self._maybe_hand_over():
            progress.paused = False
            self._send_appends(to, progress, even_empty=True)

    def _maybe_hand_over(self) -> bool:
        """Tell the transferee to stand once it has the whole log, so that it wins."""
        core = self.core
        progress = self.progress.get(self.transferee)
        if progress is None or progress.match != core.log.last_index:
            return False
        self._lease_lost = True
        core.send(MsgTimeoutNow(self.transferee, core.id, core.term))
        return True

    # -- membership ----------------------------------------------------------------------------------------------

    def conf_state_changed(self) -> None:
        """The core uses a new configuration."""
        core = self.core
        self._track_members()
        if self.transferee not in core.quorum.voters:
            self.transferee = 0
        self._maybe_commit()  # the new quorum may be smaller
        self._confirm_reads()
        self._broadcast_due = bool(self.progress)

    def after_applying(self) -> None:
        """What was committed is applied: go on with what waited for that."""
        if self.core.id not in self.core.quorum.voters:
            self._resign()
        else:
            self._maybe_leave_joint()

    def _resign(self) -> None:
        """We have no vote any more: let the others know of it, and the one with the most of the log take over."""
        core = self.core
        self.before_ready()
        heir = max(sorted(core.quorum.voters), key=lambda id: self.progress[id].match)
        core.send(MsgTimeoutNow(heir, core.id, core.term))
        core.become_follower(core.term, 0)

    def _track_members(self) -> None:
        others = self.core.conf_state.members - {self.core.id}
        for id in [id for id in self.progress if id not in others]:
            del self.progress[id]
            self._match.pop(id, None)
        for id in sorted(others - self.progress.keys()):
            self.progress[id] = self._new_progress()

    def _new_progress(self) -> Progress:
        config = self.core.config
        inflights = Inflights(config.inflight_messages_max, config.inflight_bytes_max)
        return Progress(self.core.log.last_index + 1, inflights)

    def _maybe_leave_joint(self) -> None:
        """End a joint configuration that ends by itself, once the entry that began it is applied."""
        core = self.core
        if core.conf_state.auto_leave and core.conf_state.joint and core.log.applied >= self.pending_conf_index:
            self.pending_conf_index = self._append([(ConfChange.leave().encode(), EntryKind.CONF_CHANGE)])

    def on_rival(self, m: Message) -> None:
        """A leader's message in our own term."""
        check(False, "a term has one leader", term=m.term, leaders=(self.core.id, m.sender))

    handlers: ClassVar = {
        MsgProp: on_proposals,
        MsgAppResp: on_append_response,
        MsgHeartbeatResp: on_heartbeat_response,
        MsgReadIndex: on_read_index,
        MsgApp: on_rival,
        MsgHeartbeat: on_rival,
        MsgSnap: on_rival,
    }
