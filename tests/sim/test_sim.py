"""The simulated cluster keeps Raft's promises, and the simulation would notice if it did not."""

from collections import Counter

import pytest
from sim.mutations import MUTATIONS, plant
from sim.world import Failure, World

from raftstore.errors import InvariantBroken
from raftstore.raft.node import Role

SEEDS = 300
GROUPS = 10
MUTANT_SEEDS_MAX = 400
HAPPENED: Counter[str] = Counter()

# Kinds of events without which a run of all seeds has proved nothing about them.
MUST_HAPPEN = [
    "message lost",
    "message duplicated",
    "message delayed for long",
    "message cut off",
    "partition: isolated",
    "partition: deaf",
    "partition: mute",
    "partition: split",
    "partition: one way",
    "partition: bridged",
    "crash, batch idle",
    "crash, batch kept",
    "crash, batch torn",
    "crash, batch lost",
    "crash between snapshot and log",
    "fsync failed",
    "stalled",
    "clock changed speed",
    "elected",
    "leadership handed over",
    "membership is joint",
    "membership is simple",
    "snapshot installed",
    "checkpoint",
    "reported unreachable",
    "proposal forwarded",
    "ProposalDropped",
    "answered put",
    "answered cas",
    "answered get",
    "read under lease or alone",
]


@pytest.mark.xdist_group("sim")
@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS // GROUPS))
def test_cluster_is_safe_and_makes_progress(first: int) -> None:
    for seed in range(first, first + SEEDS // GROUPS):
        HAPPENED.update(World(seed).run().counts)


@pytest.mark.xdist_group("sim")
def test_every_kind_of_event_has_happened() -> None:
    if not HAPPENED:
        pytest.skip("the seeds were not run")
    assert [kind for kind in MUST_HAPPEN if not HAPPENED[kind]] == []
    assert HAPPENED["history too hard to check"] < SEEDS / 5


def test_a_seed_replays_exactly() -> None:
    first, second = World(7, 1_000_000).run(), World(7, 1_000_000).run()
    assert str(first.trace) == str(second.trace)
    assert first.counts == second.counts


def test_disk_that_lied_is_noticed() -> None:
    world = World(1, kind="calm")
    world.begin()
    world.until(60)
    liar = next(member for member in world.members.values() if member.node.role is Role.FOLLOWER)
    liar.kill()
    while liar.node.log.last_index - liar.disk.recover()[1][-1].index < 2:
        assert liar.disk.lose_confirmed()
    liar.start()
    with pytest.raises(InvariantBroken, match="the disk lost entries"):
        world.until(80)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_planted_bug_is_caught(mutation: str) -> None:
    kind, first = MUTATIONS[mutation][3:]
    with plant(mutation):
        assert any(_fails(seed, kind) for seed in range(first, first + MUTANT_SEEDS_MAX)), "no seed noticed"


def _fails(seed: int, kind: str) -> bool:
    try:
        World(seed, kind=kind).run()
    except Failure as failure:
        assert f"seed {seed}:" in str(failure)
        return True
    return False
