"""What goes wrong, how often, and how badly: all of it drawn from the run's one source of chance."""

import random
from dataclasses import dataclass, replace
from typing import Any

from sim.network import Weather

from raftstore.raft.core import ReadOption


@dataclass
class Plan:
    """One run's character. Rates are chances per tick of the whole cluster."""

    members: int
    clients: int
    settings: dict[str, Any]
    """Of the core's configuration."""
    weather: Weather
    crash: float
    down_ticks: float
    partition: float
    partition_ticks: float
    stall: float
    skew: float
    """Clocks run up to this much faster or slower."""
    transfer: float
    membership: float
    checkpoint: float
    keep: int
    """Entries that are kept behind a checkpoint."""
    disk_delay: float
    disk_failure: float
    at_leader: float
    """Share of misfortunes that hit somebody who believes to lead, and of requests that go to one."""
    think_ticks: float
    """Clients pause up to so long between two operations."""
    impatience: float
    """Share of operations whose answer the client does not wait for before the next one."""


def draw(dice: random.Random, kind: str = "") -> Plan:
    """A run's character: each kind of fault is absent from some runs, so that it cannot hide what others do."""
    plan = _draw_any(dice)
    storm = dice.random() < 0.25
    return KINDS[kind](dice, plan) if kind else _storm(dice, plan) if storm else plan


def _storm(dice: random.Random, plan: Plan) -> Plan:
    """Leaders come and go faster than their entries travel: what Raft's finer rules are for (Figure 8)."""
    settings = plan.settings | {
        "election_ticks": 5,
        "heartbeat_ticks": 1,
        "message_bytes_max": 1,
        "inflight_messages_max": dice.choice([1, 2]),
        "uncommitted_bytes_max": 0,
    }
    return replace(
        plan,
        members=dice.choice([3, 3, 5]),
        clients=4,
        settings=settings,
        weather=Weather(loss=dice.choice([0.1, 0.3]), duplication=0.1, delay=dice.choice([0.5, 2.0]), straggling=0.02),
        crash=dice.choice([0.05, 0.15]),
        down_ticks=10,
        partition=dice.choice([0.02, 0.1]),
        partition_ticks=15,
        stall=0.0,
        membership=0.0,
        disk_delay=0.5,
        at_leader=0.9,
        think_ticks=1,
        impatience=0.7,
    )


def _draw_any(dice: random.Random) -> Plan:
    def rate(most: float) -> float:
        return dice.choice([0.0, most / 4, most])

    lease = dice.random() < 0.25
    election_ticks = dice.choice([5, 10, 10, 20])
    return Plan(
        members=dice.choice([1, 2, 3, 3, 3, 3, 5, 5]),
        clients=dice.choice([2, 3, 4]),
        settings={
            "election_ticks": election_ticks,
            "heartbeat_ticks": dice.choice([1, 2]) if election_ticks < 20 else 4,
            "pre_vote": dice.random() < 0.8,
            "check_quorum": lease or dice.random() < 0.8,
            "read_option": ReadOption.LEASE if lease else ReadOption.SAFE,
            "message_bytes_max": dice.choice([1, 60, 200, 1 << 20]),
            "inflight_messages_max": dice.choice([1, 4, 256]),
            "inflight_bytes_max": dice.choice([0, 150, 1 << 20]),
            "uncommitted_bytes_max": dice.choice([0, 150, 1000, 1 << 20]),
            "apply_bytes_max": dice.choice([0, 1, 200]),
        },
        weather=Weather(
            loss=rate(0.2),
            duplication=rate(0.2),
            delay=dice.choice([0.05, 0.5, 2.0]),
            straggling=rate(0.05),
        ),
        crash=rate(0.02),
        down_ticks=dice.choice([5, 30, 100]),
        partition=rate(0.02),
        partition_ticks=dice.choice([10, 40, 120]),
        # Leases rest on clocks and on processes that do not sleep between looking and answering.
        stall=0.0 if lease else rate(0.01),
        skew=dice.choice([0.0, 0.2]) if lease else dice.choice([0.0, 0.2, 1.0]),
        transfer=rate(0.01),
        membership=rate(0.02),
        checkpoint=rate(0.1),
        keep=dice.choice([0, 2, 20]),
        disk_delay=dice.choice([0.05, 0.5, 3.0]),
        disk_failure=rate(0.002),
        at_leader=dice.choice([0.2, 0.6]),
        think_ticks=dice.choice([1, 5]),
        impatience=dice.choice([0.0, 0.3]),
    )


def _leases(dice: random.Random, plan: Plan) -> Plan:
    """Leaders with leases are cut off again and again, and asked."""
    plan = _storm(dice, plan)
    settings = plan.settings | {
        "election_ticks": 10,
        "heartbeat_ticks": 3,
        "lease_ticks": 8,
        "check_quorum": True,
        "read_option": ReadOption.LEASE,
        "message_bytes_max": 1 << 20,
        "inflight_messages_max": 256,
    }
    quiet = Weather(loss=0.02, duplication=0.1, delay=0.5, straggling=0.02)
    return replace(plan, settings=settings, weather=quiet, crash=0.01, partition=0.05, partition_ticks=40, skew=0.1)


def _members(dice: random.Random, plan: Plan) -> Plan:
    """Members come and go all the time."""
    return replace(
        plan,
        members=dice.choice([2, 3, 4]),
        membership=dice.choice([0.03, 0.1]),
        partition=0.06,
        partition_ticks=40,
        checkpoint=0.1,
        keep=0,
    )


def _calm(dice: random.Random, plan: Plan) -> Plan:
    """Nothing goes wrong."""
    none: dict[str, float] = dict.fromkeys(["crash", "partition", "stall", "skew", "transfer", "membership"], 0.0)
    return replace(plan, members=3, weather=Weather(), checkpoint=0.0, disk_failure=0.0, disk_delay=0.1, **none)  # type: ignore[arg-type]


KINDS = {"calm": _calm, "storm": _storm, "leases": _leases, "members": _members}
