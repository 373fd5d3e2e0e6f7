"""The parts below the node, against the paper's sentences and naive twins."""

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftstore.errors import InvariantBroken
from raftstore.raft import node as node_module
from raftstore.raft.confchange import Change, ChangeType, ConfChange, Transition, bootstrap
from raftstore.raft.core import Config
from raftstore.raft.errors import ConfChangeRefused, ProposalDropped
from raftstore.raft.log import ENTRY_OVERHEAD_BYTES, RaftLog
from raftstore.raft.message import MsgApp, MsgAppResp, MsgHeartbeat, MsgProp
from raftstore.raft.node import Node, Role
from raftstore.raft.progress import Inflights, Progress, ProgressState
from raftstore.raft.quorum import JointQuorum, Vote, committed_index
from raftstore.raft.types import ConfState, Entry, EntryKind, HardState


def entries(*terms: int, first: int = 1) -> list[Entry]:
    return [Entry(index, term, b"x" * term) for index, term in enumerate(terms, first)]


def follower(log: RaftLog, term: int = 5) -> Node:
    return Node(Config(2, frozenset({1, 2, 3})), log, HardState(term, 0, 0))


def answers(node: Node) -> list[MsgAppResp]:
    ready = node.ready()
    node.advance(ready)
    return [m for m in ready.promises if isinstance(m, MsgAppResp)]


# -- quorum ------------------------------------------------------------------------------------------------------

groups = st.frozensets(st.integers(1, 7), min_size=1, max_size=5)


@given(groups, groups, st.dictionaries(st.integers(1, 7), st.integers(0, 9)))
def test_joint_commitment_needs_both_groups(old: frozenset[int], new: frozenset[int], match: dict[int, int]) -> None:
    joint = JointQuorum(new, old).committed_index(match)
    assert joint == min(committed_index(old, match), committed_index(new, match))


@given(groups, groups, st.dictionaries(st.integers(1, 7), st.booleans()))
def test_joint_election_is_won_by_both_and_lost_by_one(
    old: frozenset[int], new: frozenset[int], votes: dict[int, bool]
) -> None:
    alone = [JointQuorum(group).count_votes(votes) for group in (old, new)]
    joint = JointQuorum(new, old).count_votes(votes)
    assert (joint is Vote.WON) == (alone == [Vote.WON, Vote.WON])
    assert (joint is Vote.LOST) == (Vote.LOST in alone)


def test_without_voters_nothing_is_decided() -> None:
    assert JointQuorum(frozenset()).committed_index({1: 5}) == 0
    assert JointQuorum(frozenset()).count_votes({1: True}) is Vote.LOST


# -- membership --------------------------------------------------------------------------------------------------

changes = st.lists(st.tuples(st.sampled_from(ChangeType), st.integers(1, 6)), min_size=1, max_size=4)


@given(groups, st.lists(changes, max_size=4))
def test_any_two_configurations_in_a_row_share_a_voter_in_all_majorities(
    voters: frozenset[int], rows: list[list[tuple[ChangeType, int]]]
) -> None:
    conf = ConfState(voters)
    for row in rows:
        change = ConfChange(tuple(Change(*step) for step in row))
        for step in (change, ConfChange.leave()):
            try:
                after = step.apply_to(conf)
            except ConfChangeRefused:
                continue
            assert ConfChange.decode(step.encode()) == step
            assert not after.voters & after.learners
            assert not (after.joint and step is not change)
            assert one_group_bridges(conf, after)
            conf = after


def one_group_bridges(before: ConfState, after: ConfState) -> bool:
    """Some group of the one differs from some group of the other by one voter at most."""
    sides = [[group for group in (conf.voters, conf.outgoing) if group] for conf in (before, after)]
    return any(len(left ^ right) <= 1 for left in sides[0] for right in sides[1])


def test_demoted_voter_becomes_a_learner_only_when_the_joint_configuration_is_left() -> None:
    change = ConfChange((Change(ChangeType.ADD_LEARNER, 1), Change(ChangeType.ADD_VOTER, 4)))
    joint = change.apply_to(ConfState(frozenset({1, 2, 3})))
    assert joint == ConfState(frozenset({2, 3, 4}), frozenset(), frozenset({1, 2, 3}), frozenset({1}), True)
    assert ConfChange.leave().apply_to(joint) == ConfState(frozenset({2, 3, 4}), frozenset({1}))


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x07\x00\x00", ConfChange((Change(ChangeType.REMOVE, 1),)).encode()[:-1]]
)
def test_what_is_no_change_is_refused(data: bytes) -> None:
    with pytest.raises(ConfChangeRefused):
        ConfChange.decode(data)


@pytest.mark.parametrize(
    ("conf", "change"),
    [
        (ConfState(frozenset({1})), ConfChange((Change(ChangeType.REMOVE, 1),))),
        (ConfState(frozenset({1})), ConfChange((Change(ChangeType.ADD_VOTER, 0),))),
        (ConfState(frozenset({1})), ConfChange.leave()),
        (ConfState(frozenset({1}), outgoing=frozenset({2})), ConfChange((Change(ChangeType.ADD_VOTER, 3),))),
    ],
)
def test_impossible_change_is_refused(conf: ConfState, change: ConfChange) -> None:
    with pytest.raises(ConfChangeRefused):
        change.apply_to(conf)


def test_one_voter_may_go_through_a_joint_configuration_too() -> None:
    change = ConfChange((Change(ChangeType.ADD_VOTER, 2),), Transition.JOINT_EXPLICIT)
    after = change.apply_to(ConfState(frozenset({1})))
    assert after.joint
    assert not after.auto_leave


def test_cluster_is_born_with_its_members_as_first_entry() -> None:
    state, log = bootstrap([3, 1, 2], b"names")
    assert (state, len(log), log[0].kind) == (HardState(1, 0, 1), 1, EntryKind.CONF_CHANGE)
    assert bootstrap([1, 2, 3], b"names")[1] == log
    assert ConfChange.decode(log[0].data).apply_to(ConfState()).voters == {1, 2, 3}


# -- progress ----------------------------------------------------------------------------------------------------


def test_window_is_bounded_in_messages_and_bytes() -> None:
    window = Inflights(2, 100)
    window.add(1, 10)
    assert not window.full
    window.add(2, 10)
    assert window.full
    window.free_to(1)
    assert not window.full
    window.add(3, 95)
    assert window.full
    window.free_to(3)
    assert len(window) == 0


def test_late_rejection_does_not_move_progress() -> None:
    progress = Progress(10, Inflights(8, 0))
    assert not progress.maybe_back_off(5, 2)
    assert progress.maybe_back_off(9, 4)
    assert (progress.match, progress.next) == (0, 5)
    progress.maybe_update(4)
    progress.become_replicate()
    assert not progress.maybe_back_off(4, 1)
    assert progress.maybe_back_off(5, 1)


def test_after_a_snapshot_the_probe_begins_behind_it() -> None:
    progress = Progress(10, Inflights(8, 0))
    progress.become_snapshot(20)
    assert progress.is_paused
    progress.become_probe()
    assert (progress.state, progress.next, progress.is_paused) == (ProgressState.PROBE, 21, False)


# -- log ---------------------------------------------------------------------------------------------------------

terms = st.lists(st.integers(1, 5), max_size=8).map(sorted)


@given(terms, st.integers(0, 10), st.integers(0, 6))
def test_agreement_hint_is_the_last_entry_of_a_term_not_above(log: list[int], index: int, term: int) -> None:
    candidates = [at for at, own in enumerate(log, 1) if at <= index and own <= term]
    at = max(candidates, default=0)
    assert RaftLog((0, 0), entries(*log)).agreement_hint(index, term) == (at, log[at - 1] if at else 0)


@given(terms, st.integers(1, 9), st.integers(0, 9), st.integers(0, 200))
def test_slice_takes_what_fits_but_at_least_one(log: list[int], lo: int, count: int, bytes_max: int) -> None:
    raft_log = RaftLog((0, 0), entries(*log))
    lo = min(lo, len(log) + 1)
    hi = min(lo + count, len(log) + 1)
    taken = raft_log.slice(lo, hi, bytes_max)
    sizes = [len(entry.data) + ENTRY_OVERHEAD_BYTES for entry in entries(*log)[lo - 1 : hi - 1]]
    fit = next((n for n in range(len(sizes), 0, -1) if not bytes_max or sum(sizes[:n]) <= bytes_max), 1)
    assert [entry.index for entry in taken] == list(range(lo, min(lo + fit, hi)))
    assert raft_log.size_bytes(lo, hi) == sum(sizes)


@given(terms, terms, st.integers(0, 8))
def test_append_makes_the_log_agree_and_keeps_what_already_does(mine: list[int], theirs: list[int], prev: int) -> None:
    log = RaftLog((0, 0), entries(*mine))
    prev = min(prev, len(theirs))
    sent = entries(*theirs)[prev:]
    agreed = log.term(prev) == (theirs[prev - 1] if prev else 0)
    assert log.maybe_append(prev, theirs[prev - 1] if prev else 0, sent) is agreed
    now = [log.term(at) for at in range(1, log.last_index + 1)]
    if not agreed or now == mine:
        assert now == mine
    else:
        assert now == mine[:prev] + theirs[prev:]
    assert log.uncommitted_bytes == log.size_bytes(1, log.last_index + 1)


def test_committed_entries_are_never_replaced() -> None:
    log = RaftLog((0, 0), entries(1, 1, 1), commit=2)
    with pytest.raises(InvariantBroken):
        log.maybe_append(1, 1, entries(2, first=2))


def test_log_that_ends_before_what_was_committed_is_refused() -> None:
    with pytest.raises(InvariantBroken):
        RaftLog((0, 0), entries(1, 1), commit=3)


@pytest.mark.parametrize(
    ("applied", "disk", "kept"),
    [
        ((0, 0), entries(1, 1), [1, 2]),
        ((1, 1), entries(1, 1), [2]),
        ((4, 2), entries(2, first=5), [5]),
        ((3, 2), entries(1, 1, 1, 1), []),
        ((9, 2), entries(1, 1), []),
        ((3, 1), [], []),
    ],
    ids=["from the beginning", "behind the machine", "right after it", "of another past", "all older", "empty"],
)
def test_recovery_keeps_entries_that_follow_on_the_machine(
    applied: tuple[int, int], disk: list[Entry], kept: list[int]
) -> None:
    log = RaftLog.recover(applied, disk, 0)
    assert [entry.index for entry in log.slice(log.first_index, log.last_index + 1)] == kept
    assert log.begins_anew is (bool(disk) and not kept)


# -- node --------------------------------------------------------------------------------------------------------


def test_follower_commits_no_further_than_the_message_reaches() -> None:
    node = follower(RaftLog((0, 0), entries(1, 2, 2)))
    node.step(MsgApp(2, 1, 5, 1, 1, [], 3))
    assert node.log.committed == 1


def test_follower_acknowledges_no_further_than_the_message_reaches() -> None:
    node = follower(RaftLog((0, 0), entries(1, 2, 2)))
    node.step(MsgApp(2, 1, 5, 0, 0, entries(1), 0))
    assert answers(node)[0].index == 1


def test_late_message_does_not_shorten_the_log() -> None:
    node = follower(RaftLog((0, 0), entries(1, 2, 2)))
    node.step(MsgApp(2, 1, 5, 0, 0, entries(1, 2), 0))
    assert node.log.last_index == 3


def test_disk_that_lost_what_was_acknowledged_is_noticed() -> None:
    node = follower(RaftLog((0, 0), entries(1)))
    with pytest.raises(InvariantBroken, match="lost entries"):
        node.step(MsgHeartbeat(2, 1, 5, 2, 1))


def test_two_leaders_in_one_term_are_noticed() -> None:
    node = follower(RaftLog((0, 0), []))
    node.step(MsgHeartbeat(2, 1, 5, 0, 1))
    with pytest.raises(InvariantBroken, match="one leader"):
        node.step(MsgHeartbeat(2, 3, 5, 0, 1))


def test_ready_must_be_followed_by_advance() -> None:
    node = follower(RaftLog((0, 0), []))
    node.ready()
    with pytest.raises(InvariantBroken):
        node.ready()


def test_change_that_is_not_applied_is_noticed() -> None:
    state, log = bootstrap([1, 2, 3])
    node = Node(Config(2), RaftLog((0, 0), log, 1), state)
    with pytest.raises(InvariantBroken, match="changes of members are applied"):
        node.advance(node.ready())


def test_member_that_knows_no_membership_does_not_stand() -> None:
    node = Node(Config(2), RaftLog((0, 0), []), HardState())
    for _ in range(50):
        node.tick()
    assert (node.role, node.term) == (Role.FOLLOWER, 0)


def test_lone_voter_sends_nothing_of_a_term_that_is_not_durable() -> None:
    conf = ConfState(frozenset({1}), frozenset({2}))
    node = Node(Config(1), RaftLog((0, 0), []), HardState(), conf)
    node.campaign()
    assert node.role is Role.LEADER
    assert node.take_messages() == []
    ready = node.ready()
    assert ready.messages == []
    assert [type(m) for m in ready.promises] == [MsgApp]


def test_forwarded_proposals_that_are_refused_are_dropped_as_a_whole() -> None:
    node = Node(
        Config(1, frozenset({1, 2, 3}), uncommitted_bytes_max=100, pre_vote=False), RaftLog((0, 0), []), HardState()
    )
    node.campaign()
    node.acting.votes = {1: True, 2: True}  # type: ignore[union-attr]
    node.become_leader()
    node.propose([b"x" * 40])
    with pytest.raises(ProposalDropped):
        node.propose([b"y", b"y"])
    node.step(MsgProp(1, 2, 0, [(b"y" * 40, EntryKind.COMMAND)]))
    assert node.log.last_index == 2


# -- purity ------------------------------------------------------------------------------------------------------

ORDER = [
    *["types", "errors", "quorum", "confchange", "message", "progress", "log", "read"],
    *["core", "follower", "candidate", "leader", "node"],
]
PURE = {
    "abc",
    "bisect",
    "collections",
    "collections.abc",
    "dataclasses",
    "enum",
    "itertools",
    "operator",
    "struct",
    "typing",
}


@pytest.mark.parametrize("name", ORDER)
def test_core_imports_only_from_its_left_and_nothing_impure(name: str) -> None:
    source = (Path(node_module.__file__).parent / f"{name}.py").read_text()
    imports = {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
    ours = {f"raftstore.raft.{left}" for left in ORDER[: ORDER.index(name)]} | {"raftstore.errors"}
    assert imports <= ours | PURE
    assert not [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import)]
