"""A candidate, and the pre-candidate that first asks whether it would win (Raft §5.2, thesis §9.6)."""

from typing import ClassVar

from raftstore.raft.core import Acting, Core, Role
from raftstore.raft.message import Message, MsgApp, MsgHeartbeat, MsgSnap, MsgVote, MsgVoteResp
from raftstore.raft.quorum import Vote
from raftstore.raft.types import MemberId


class Candidate(Acting):
    """Counts votes in its own term."""

    role = Role.CANDIDATE

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self.votes: dict[MemberId, bool] = {core.id: True}

    def ask(self, transfer: bool = False) -> None:
        """Request the votes of all others; alone, win at once."""
        core, log = self.core, self.core.log
        pre = self.role is Role.PRE_CANDIDATE
        term = core.term + 1 if pre else core.term
        for voter in sorted(core.quorum.voters - {core.id}):
            core.send(MsgVote(voter, core.id, term, log.last_index, log.last_term, pre, transfer))
        self._count()

    def tick(self) -> None:
        """An election without a winner is repeated (Raft §5.2)."""
        core = self.core
        core.elapsed_ticks += 1
        core.silence_ticks += 1
        if core.elapsed_ticks >= core.timeout_ticks:
            core.campaign()

    def _count(self) -> None:
        outcome = self.core.quorum.count_votes(self.votes)
        if outcome is Vote.WON:
            self._win()
        elif outcome is Vote.LOST:
            self.core.become_follower(self.core.term, 0)

    def _win(self) -> None:
        self.core.become_leader()

    def on_vote(self, m: MsgVoteResp) -> None:
        """One voter has answered; its first answer counts. Answers to an earlier pre-vote do not."""
        pre = self.role is Role.PRE_CANDIDATE
        if self.core.log.term(m.commit) == m.commit_term:
            self.core.log.commit_to(m.commit)
        if m.pre is pre and not (pre and m.granted and m.term != self.core.term + 1):
            self.votes.setdefault(m.sender, m.granted)
            self._count()

    def on_leader(self, m: Message) -> None:
        """Somebody else has won this term."""
        self.core.become_follower(m.term, m.sender)
        self.core.acting.step(m)

    handlers: ClassVar = {
        MsgVoteResp: on_vote,
        MsgApp: on_leader,
        MsgHeartbeat: on_leader,
        MsgSnap: on_leader,
    }


class PreCandidate(Candidate):
    """Asks in its old term, which it leaves only if it would win: so it disturbs nobody while cut off."""

    role = Role.PRE_CANDIDATE

    def _win(self) -> None:
        if self.core.is_promotable():
            self.core.stand(transfer=False)
        else:  # an answer told of a change of members
            self.core.become_follower(self.core.term, 0)
