"""The consensus core, one sentence of the paper at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftstore.errors import InvariantBroken, NoLeader
from raftstore.raft.log import RaftLog
from raftstore.raft.node import Config, Node, Role
from raftstore.raft.quorum import Vote, committed_index, count_votes, majority
from raftstore.raft.types import Entry, HardState


def lone_node(log: RaftLog | None = None, state: HardState | None = None) -> Node:
    config = Config(id=1, voters=frozenset([1]), election_ticks=3)
    return Node(config, log or RaftLog((0, 0), []), state or HardState())


def carry_out(node: Node) -> list[Entry]:
    """Do what ``ready`` says until there is nothing left; returns what was applied."""
    applied: list[Entry] = []
    while node.has_ready():
        ready = node.ready()
        applied += ready.committed
        node.advance(ready)
    return applied


def test_lone_voter_elects_itself_after_its_timeout() -> None:
    node = lone_node()
    node.tick()
    node.tick()
    assert node.role is Role.FOLLOWER
    node.tick()
    assert (node.role, node.leader, node.term) == (Role.LEADER, 1, 1)


def test_leader_commits_an_entry_of_its_own_term_before_it_serves_reads() -> None:
    node = lone_node()
    node.campaign()
    assert node.read_index() is None
    assert carry_out(node) == [Entry(1, 1, b"")]
    assert node.read_index() == 1


def test_nothing_is_committed_before_it_is_durable() -> None:
    node = lone_node()
    node.campaign()
    carry_out(node)
    node.propose([b"a"])
    ready = node.ready()
    assert ready.entries == [Entry(2, 1, b"a")]
    assert ready.committed == []
    assert node.log.committed == 1
    node.advance(ready)
    assert node.ready().committed == [Entry(2, 1, b"a")]


def test_proposals_made_while_the_disk_works_form_the_next_batch() -> None:
    node = lone_node()
    node.campaign()
    carry_out(node)
    node.propose([b"a"])
    first = node.ready()
    node.propose([b"b"])
    node.propose([b"c"])
    node.advance(first)
    second = node.ready()
    assert [entry.data for entry in second.committed] == [b"a"]
    assert [entry.data for entry in second.entries] == [b"b", b"c"]


def test_hard_state_is_handed_out_once() -> None:
    node = lone_node()
    node.campaign()
    ready = node.ready()
    assert ready.hard_state == HardState(term=1, vote=1, commit=0)
    node.advance(ready)
    assert node.ready().hard_state is None


def test_restarted_member_commits_what_its_disk_holds_by_an_entry_of_a_new_term() -> None:
    old = [Entry(5, 2, b"a"), Entry(6, 2, b"b")]
    node = lone_node(RaftLog((4, 2), old, commit=5), HardState(term=2, vote=1, commit=5))
    assert carry_out(node) == old[:1]
    node.campaign()
    assert node.term == 3
    assert carry_out(node) == [old[1], Entry(7, 3, b"")]


def test_follower_does_not_append() -> None:
    with pytest.raises(NoLeader):
        lone_node().propose([b"a"])


def test_log_forgets_only_what_is_applied() -> None:
    log = RaftLog((0, 0), [Entry(1, 1, b"a"), Entry(2, 1, b"b"), Entry(3, 2, b"c")], commit=2)
    log.applied_to(2)
    log.compact(2)
    assert (log.first_index, log.last_index, log.last_term) == (3, 3, 2)
    assert (log.term(1), log.term(2), log.term(3), log.term(4)) == (None, 1, 2, None)
    log.compact(1)
    with pytest.raises(InvariantBroken):
        log.compact(3)
    with pytest.raises(InvariantBroken):
        log.slice(2, 4)


def test_replaced_entry_does_not_become_stable() -> None:
    log = RaftLog((0, 0), [Entry(1, 1, b"a")])
    log.append([Entry(2, 3, b"b")])
    log.stable_to(2, 2)
    assert log.stable == 1
    log.stable_to(2, 3)
    assert log.stable == 2


voters_and_matches = st.dictionaries(st.integers(1, 9), st.integers(0, 20), min_size=1, max_size=7)


@given(voters_and_matches)
def test_committed_index_is_the_highest_that_a_majority_holds(match: dict[int, int]) -> None:
    def held(index: int) -> bool:
        return sum(1 for at in match.values() if at >= index) >= majority(match)

    found = committed_index(match, match)
    assert held(found)
    assert not held(found + 1)


@pytest.mark.parametrize(
    ("votes", "outcome"),
    [
        ({}, Vote.PENDING),
        ({1: True}, Vote.PENDING),
        ({1: True, 2: True}, Vote.WON),
        ({1: True, 2: False}, Vote.PENDING),
        ({2: False, 3: False}, Vote.LOST),
        ({1: True, 9: True}, Vote.PENDING),
    ],
)
def test_election_is_decided_by_a_majority_of_voters(votes: dict[int, bool], outcome: Vote) -> None:
    assert count_votes({1, 2, 3}, votes) is outcome
