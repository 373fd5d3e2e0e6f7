"""Bugs to plant in the core, one at a time, to see that the simulation notices.

Each is what somebody could write in good faith, or forget. ``plant`` undoes itself.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from sim.disk import Disk

from raftstore.raft.candidate import PreCandidate
from raftstore.raft.confchange import ConfChange
from raftstore.raft.core import Role
from raftstore.raft.follower import Follower
from raftstore.raft.leader import Leader
from raftstore.raft.log import RaftLog
from raftstore.raft.message import MsgHeartbeat, MsgSnap, MsgVote, MsgVoteResp
from raftstore.raft.node import Node, Ready
from raftstore.raft.quorum import JointQuorum, committed_index
from raftstore.raft.types import ConfState, Entry, HardState, Index


def commit_old_terms(leader: Leader) -> None:
    """Commits what a majority holds, of whatever term (Raft Figure 8)."""
    log, index = leader.core.log, leader.core.quorum.committed_index(leader._match)
    if index > log.committed:
        log.commit_to(index)
        leader._broadcast_due = bool(leader.progress)


_begin = Disk.begin


def forget_vote(disk: Disk, hard_state: HardState | None, entries: list[Entry], log_start: int | None = None) -> None:
    """Does not save the vote."""
    _begin(disk, hard_state and hard_state._replace(vote=0), entries, log_start)


def forget_term(disk: Disk, hard_state: HardState | None, entries: list[Entry], log_start: int | None = None) -> None:
    """Saves the hard state only together with entries."""
    _begin(disk, hard_state if entries else None, entries, log_start)


_ready = Node.ready


def promise_early(node: Node) -> Ready:
    """Acknowledges entries and votes before they are durable."""
    ready = _ready(node)
    return ready._replace(messages=ready.messages + ready.promises, promises=[])


def always_up_to_date(log: RaftLog, last_index: Index, last_term: int) -> bool:
    """Votes for anybody, however old his log."""
    return True


def newer_if_longer(log: RaftLog, last_index: Index, last_term: int) -> bool:
    """Compares only lengths of logs."""
    return last_index >= log.last_index


def read_without_quorum(leader: Leader) -> Index | None:
    """Answers reads because it believes that it leads."""
    return leader.core.log.committed


def read_before_first_commit(leader: Leader, member: int, context: int) -> None:
    """Serves reads before anything of its own term is committed."""
    leader.reads.add(member, context, leader.core.log.committed)


def pre_vote_is_election(candidate: PreCandidate) -> None:
    """Leads as soon as the pre-vote is won."""
    candidate.core.term += 1
    candidate.core.become_leader()


def vote_twice(node: Node, m: MsgVote) -> None:
    """Does not look whether it has voted in this term."""
    granted = node.log.is_up_to_date(m.last_index, m.last_term)
    node.send(MsgVoteResp(m.sender, node.id, m.term if granted else node.term, granted, m.pre))
    if granted and not m.pre:
        node.vote = m.sender


def no_consistency_check(log: RaftLog, prev_index: Index, prev_term: int, entries: Sequence[Entry]) -> bool:
    """Appends wherever its own log ends at the right length."""
    return prev_index <= log.last_index and _maybe_append(log, prev_index, log.term(prev_index) or 0, entries)


_maybe_append = RaftLog.maybe_append


def heartbeat_commits_all(leader: Leader) -> None:
    """Tells followers of commitment beyond what they are known to have."""
    core, round = leader.core, leader.reads.begin_round(leader._ticks)
    for id, progress in leader.progress.items():
        progress.match, kept = core.log.last_index, progress.match
        core.send(MsgHeartbeat(id, core.id, core.term, min(progress.match, core.log.committed), round))
        progress.match = kept
    leader._confirm_reads()


def change_many_at_once(change: ConfChange, conf: ConfState, changed: ConfState) -> bool:
    """Replaces several voters in one step."""
    return False


def learners_count(quorum: JointQuorum, match: dict[int, int]) -> int:
    """Counts everybody who acknowledges."""
    return committed_index(list(match), match) if quorum.incoming else 0


def changes_overlap(leader: Leader, change: ConfChange, pending: Index) -> None:
    """Begins a change of members while another is not applied."""
    if change.changes:
        change.apply_to(leader.core.conf_state)


def keep_old_members(follower: Follower, m: MsgSnap) -> None:
    """Installs a snapshot without its membership."""
    kept = follower.core.conf_state
    _on_snapshot(follower, m)
    follower.core.use_conf_state(kept)


_on_snapshot = Follower.on_snapshot


def lease_for_ever(leader: Leader) -> bool:
    """A lease that never ends."""
    return leader.core.config.read_option.value == "lease"


def stay_leader_quietly(node: Node, m: Any) -> bool:
    """A leader ignores that there is a higher term."""
    return node.role is not Role.LEADER and _meet_higher_term(node, m)


_meet_higher_term = Node._meet_higher_term

MUTATIONS: dict[str, tuple[Any, str, Callable[..., Any], str, int]] = {
    mutation.__name__: (owner, name, mutation, kind, first)
    for owner, name, mutation, kind, first in [
        (Leader, "_maybe_commit", commit_old_terms, "storm", 295),
        (Disk, "begin", forget_vote, "storm", 10),
        (Disk, "begin", forget_term, "storm", 10),
        (Node, "ready", promise_early, "storm", 5),
        (RaftLog, "is_up_to_date", always_up_to_date, "storm", 0),
        (RaftLog, "is_up_to_date", newer_if_longer, "storm", 55),
        (Leader, "_certain_read_index", read_without_quorum, "storm", 6),
        (Leader, "_add_read", read_before_first_commit, "storm", 19),
        (PreCandidate, "_win", pre_vote_is_election, "storm", 0),
        (Node, "_answer_vote", vote_twice, "storm", 0),
        (RaftLog, "maybe_append", no_consistency_check, "storm", 10),
        (Leader, "_send_heartbeats", heartbeat_commits_all, "storm", 0),
        (ConfChange, "_needs_joint", change_many_at_once, "members", 14),
        (JointQuorum, "committed_index", learners_count, "members", 0),
        (Leader, "_check_conf_change", changes_overlap, "members", 6),
        (Follower, "on_snapshot", keep_old_members, "members", 0),
        (Leader, "_holds_lease", lease_for_ever, "leases", 71),
        (Node, "_meet_higher_term", stay_leader_quietly, "members", 74),
    ]
}
"""By name: what to replace, by what, the kind of run that should notice, and a seed that is near one that does."""


@contextmanager
def plant(name: str) -> Iterator[None]:
    """The core with one bug, for the length of the block."""
    owner, attribute, mutation, _, _ = MUTATIONS[name]
    replacement: Any = property(mutation) if isinstance(vars(owner)[attribute], property) else mutation
    if isinstance(vars(owner)[attribute], classmethod):
        replacement = staticmethod(mutation)
    handlers = getattr(owner, "handlers", {})
    changed = {cls: mutation for cls, handler in handlers.items() if handler is vars(owner)[attribute]}
    with patch.object(owner, attribute, replacement), patch.dict(handlers, changed):
        yield
