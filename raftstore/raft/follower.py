"""A follower: takes the leader's entries, and stands for election when it hears of none (Raft §5.2, §5.3).

What a message of the leader does to the log is the same for a candidate that turns out to have lost, so ``Candidate``
becomes a follower and hands the message on.
"""

from collections.abc import Sequence
from typing import ClassVar

from raftstore.errors import check
from raftstore.raft.core import Acting, Proposal, Role
from raftstore.raft.message import (
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
from raftstore.raft.types import Index, MemberId, ReadState


class Follower(Acting):
    """Passive: it answers, forwards, and watches the clock."""

    role = Role.FOLLOWER

    def tick(self) -> None:
        core = self.core
        core.elapsed_ticks += 1
        core.silence_ticks += 1
        if core.elapsed_ticks >= core.timeout_ticks:
            core.elapsed_ticks = 0
            core.campaign()

    def propose(self, proposals: Sequence[Proposal]) -> Index:
        """Forward to the leader; whether it takes them is not known."""
        if not self.core.leader:
            return super().propose(proposals)
        self.core.send(MsgProp(self.core.leader, self.core.id, 0, list(proposals)))
        return 0

    def read_index(self, context: int) -> Index | None:
        """Ask the leader."""
        if not context or not self.core.leader:
            return super().read_index(context)
        self.core.send(MsgReadIndex(self.core.leader, self.core.id, 0, context))
        return None

    # -- the leader's messages -----------------------------------------------------------------------------------

    def _heard_of(self, leader: MemberId) -> None:
        core = self.core
        check(core.leader in (0, leader), "a term has one leader", term=core.term, leaders=(core.leader, leader))
        core.leader = leader
        core.elapsed_ticks = core.silence_ticks = 0

    def on_append(self, m: MsgApp) -> None:
        """AppendEntries (Raft Figure 2)."""
        self._heard_of(m.sender)
        core, log = self.core, self.core.log
        if m.prev_index < log.committed:
            # A late message. All that is committed agrees with any leader's log, so that is what can be confirmed.
            core.send(MsgAppResp(m.sender, core.id, core.term, log.committed))
            return
        if log.maybe_append(m.prev_index, m.prev_term, m.entries):
            last = m.prev_index + len(m.entries)
            # Not further than what surely agrees: our log may have a tail that this leader does not know.
            log.commit_to(max(log.committed, min(m.commit, last)))
            core.send(MsgAppResp(m.sender, core.id, core.term, last))
            return
        hint = log.agreement_hint(m.prev_index, m.prev_term)
        core.send(MsgAppResp(m.sender, core.id, core.term, m.prev_index, True, *hint))

    def on_heartbeat(self, m: MsgHeartbeat) -> None:
        """The leader lives, and has committed what we acknowledged."""
        self._heard_of(m.sender)
        core = self.core
        check(m.commit <= core.log.last_index, "what was acknowledged is here: the disk lost entries", commit=m.commit)
        core.log.commit_to(m.commit)
        core.send(MsgHeartbeatResp(m.sender, core.id, core.term, m.round))

    def on_snapshot(self, m: MsgSnap) -> None:
        """InstallSnapshot (Raft §7): begin the log anew, unless it is already as far."""
        self._heard_of(m.sender)
        core, log, snapshot = self.core, self.core.log, m.snapshot
        if snapshot.index > log.committed:
            if log.term(snapshot.index) == snapshot.term:
                log.commit_to(snapshot.index)  # all of it is here: entries are cheaper than an installation
            else:
                log.reset((snapshot.index, snapshot.term))
                core.pending_snapshot = snapshot
                core.use_conf_state(snapshot.conf_state)
        core.send(MsgAppResp(m.sender, core.id, core.term, log.committed))

    def on_timeout_now(self, m: MsgTimeoutNow) -> None:
        """The leader hands over to us (thesis §3.10)."""
        self.core.campaign(transfer=True)

    # -- forwarding ----------------------------------------------------------------------------------------------

    def on_proposals(self, m: MsgProp) -> None:
        """Somebody takes us for the leader: pass it on, once, to the one we know."""
        if self.core.leader not in (0, m.sender):
            self.core.send(MsgProp(self.core.leader, m.sender, 0, m.proposals))

    def on_read_index(self, m: MsgReadIndex) -> None:
        """Likewise; the answer goes to who asked."""
        if self.core.leader not in (0, m.sender):
            self.core.send(MsgReadIndex(self.core.leader, m.sender, 0, m.context))

    def on_read_index_response(self, m: MsgReadIndexResp) -> None:
        """The leader answers our read."""
        self.core.read_states.append(ReadState(m.context, m.index))

    handlers: ClassVar = {
        MsgApp: on_append,
        MsgHeartbeat: on_heartbeat,
        MsgSnap: on_snapshot,
        MsgTimeoutNow: on_timeout_now,
        MsgProp: on_proposals,
        MsgReadIndex: on_read_index,
        MsgReadIndexResp: on_read_index_response,
    }
