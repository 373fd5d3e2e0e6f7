"""One run: a cluster, its clients, its operator and its misfortunes in virtual time, all from one seed.

First everything goes wrong as planned for ``CHAOS_TICKS``; then everything is healed and the cluster must make
progress. Safety is checked after every step, histories at the end. Time is in ticks.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from sim.faults import Plan, draw
from sim.invariants import Facts
from sim.linearizability import Operation, is_linearizable
from sim.member import Machine, Member
from sim.network import Network, Weather
from sim.trace import Trace

from raftstore.errors import BadLeaderTransferee, InvariantBroken, NoLeader, check
from raftstore.raft.confchange import Change, ChangeType, ConfChange, Transition, bootstrap
from raftstore.raft.errors import ConfChangeRefused, ProposalDropped
from raftstore.raft.message import Message, MsgSnap
from raftstore.raft.node import Role
from raftstore.raft.types import ConfState

CHAOS_TICKS = 300
HEALING_TICKS = 600
KEYS = ("a", "b")
MEMBERS_MAX = 7


class Failure(AssertionError):
    """A run broke a promise. The text has the seed, how to replay it, and what led there."""


class World:
    """See the module."""

    def __init__(self, seed: int, trace_length: int = 60, kind: str = "") -> None:
        """``kind``: one of ``faults.KINDS``, or any."""
        self.seed = seed
        self.dice = random.Random(seed)
        self.plan: Plan = draw(self.dice, kind)
        self.now = 0.0
        self.counts: Counter[str] = Counter()
        self.trace = Trace(trace_length)
        self.facts = Facts()
        self.history: list[Operation] = []
        self.reads = 0
        self.members: dict[int, Member] = {}
        self._chaos = True
        self._order = 0
        self._agenda: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._written = 0
        self._waits_for: dict[int, Operation] = {}
        self._instant = 0
        self._network = Network(self.dice, self.later, self.counts)

    # -- time ----------------------------------------------------------------------------------------------------

    def later(self, delay: float, action: Callable[..., None], *args: Any) -> None:
        """Do something after ``delay`` ticks."""
        self._order += 1
        heapq.heappush(self._agenda, (self.now + delay, self._order, action, args))

    def run(self) -> "World":
        """Live through it. Raises Failure."""
        try:
            self.begin()
            self.until(CHAOS_TICKS)
            self._heal()
            self.until(CHAOS_TICKS + HEALING_TICKS, self._has_settled)
            check(self._has_settled(), "a healed cluster makes progress", waits_for=self._what_is_missing())
            self._check_history()
        except (InvariantBroken, Exception) as err:  # a crash of the core is a finding as well
            raise Failure(
                f"seed {self.seed}: {type(err).__name__}: {err}\n"
                f"replay: python -m tests.sim --from {self.seed} --seeds 1 --trace 100000\n"
                f"{self.plan}\n{self.trace}"
            ) from err
        return self

    def until(self, end: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Live until ``end``, or until there is ``enough``."""
        agenda = self._agenda
        look = self.now
        while agenda and agenda[0][0] <= end:
            self.now, _, action, args = heapq.heappop(agenda)
            action(*args)
            if self.now >= look:
                look = self.now + 5
                if enough():
                    return
        self.now = max(self.now, end)

    # -- the cluster ---------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Bring the first members up, and let clients and misfortune loose."""
        first = range(1, self.plan.members + 1)
        for id in first:
            member = self._new_member(id)
            member.disk.begin(*bootstrap(first))
            member.disk.confirm()
            member.start()
        self._network.weather = self.plan.weather
        for client in range(self.plan.clients):
            self.later(self.dice.random() * 10, self._act, client)
        self.later(1, self._misfortune)

    def _new_member(self, id: int) -> Member:
        member = self.members[id] = Member(self, id, self.plan.settings)
        member.speed = 1 + self.dice.uniform(-0.5, 1.0) * self.plan.skew
        return member

    def send(self, sender: int, message: Message, data: Machine | None = None) -> bool:
        """Put a message on the network; whether it will arrive."""
        receiver = self.members.get(message.to)
        if receiver is None:
            return False
        if data is None:
            return self._network.send(sender, message, receiver.receive)
        assert isinstance(message, MsgSnap)
        return self._network.send(sender, message, lambda m: receiver.receive_snapshot(m, data))

    def disk_delay(self, member: Member) -> float:
        return self.dice.random() * self.plan.disk_delay

    def disk_fails(self, member: Member, chance: float = 0.0) -> bool:
        return self._chaos and self.dice.random() < (chance or self.plan.disk_failure)

    def crash(self, member: Member) -> None:
        """Kill it, and start it again some time later."""
        member.kill()
        life = member.life
        self.later(self.dice.random() * self.plan.down_ticks, self._restart, member, life)

    def _restart(self, member: Member, life: int) -> None:
        if not member.alive and member.life == life:
            member.start()

    @property
    def membership(self) -> ConfState:
        """The latest that anybody has applied."""
        latest = max(self.members.values(), key=lambda member: member.machine.index)
        assert latest.machine.conf_state is not None or latest.machine.index == 0
        return latest.machine.conf_state or ConfState(frozenset(range(1, self.plan.members + 1)))

    # -- misfortune ----------------------------------------------------------------------------------------------

    def _misfortune(self) -> None:
        if not self._chaos:
            return
        self.later(1, self._misfortune)
        dice, plan = self.dice, self.plan
        everybody = [self.members[id] for id in sorted(self.members)]
        for chance, misfortune in (
            (plan.crash, self._crash_one),
            (plan.partition, self._partition),
            (plan.stall, self._stall),
            (plan.transfer, self._transfer),
            (plan.membership, self._change_members),
            (plan.checkpoint, self._checkpoint),
            (plan.skew / 50, self._skew),
        ):
            if dice.random() < chance:
                leader = self._leader() if dice.random() < plan.at_leader else None
                misfortune(leader or dice.choice(everybody))

    def _crash_one(self, member: Member) -> None:
        if member.alive:
            self.crash(member)

    def _partition(self, member: Member) -> None:
        ids, dice = sorted(self.members), self.dice
        kind = dice.choice(["isolated", "deaf", "mute", "split", "one way", "bridged"])
        dice.shuffle(ids)
        half = len(ids) // 2
        if kind in ("isolated", "deaf"):
            self._network.cut(ids, [member.id])
        if kind in ("isolated", "mute"):
            self._network.cut([member.id], ids)
        if kind in ("split", "one way"):
            self._network.cut(ids[:half], ids[half:])
        if kind == "split":
            self._network.cut(ids[half:], ids[:half])
        if kind == "bridged":  # two groups that only ids[half] can talk to
            self._network.cut(ids[:half], ids[half + 1 :])
            self._network.cut(ids[half + 1 :], ids[:half])
        self.counts["partition: " + kind] += 1
        self.trace.note(self.now, member.id, "partition:", f"{kind} {ids}")
        self.later(dice.random() * self.plan.partition_ticks, self._network.heal)

    def _stall(self, member: Member) -> None:
        if member.alive and not member.stalled:
            member.stalled = True
            self.counts["stalled"] += 1
            member.note("stalls")
            self.later(self.dice.random() * 60, self._go_on, member)

    def _go_on(self, member: Member) -> None:
        member.stalled = False

    def _skew(self, member: Member) -> None:
        member.speed = 1 + self.dice.uniform(-0.5, 1.0) * self.plan.skew
        self.counts["clock changed speed"] += 1

    def _checkpoint(self, member: Member) -> None:
        if member.alive and not member.stalled:
            member.checkpoint(self.plan.keep)
            self.counts["checkpoint"] += 1

    # -- the operator --------------------------------------------------------------------------------------------

    def _leader(self) -> Member | None:
        leads = [m for m in self.members.values() if m.alive and not m.stalled and m.node.role is Role.LEADER]
        return self.dice.choice(leads) if leads else None

    def _transfer(self, member: Member) -> None:
        leader = self._leader()
        if leader is None:
            return
        member = self.members[self.dice.choice(sorted(self.members))]
        leader.note("hands over to", member.id)
        try:
            leader.node.transfer_leadership(member.id)
            self.counts["leadership handed over"] += 1
        except BadLeaderTransferee:
            pass
        leader.pump()

    def _change_members(self, member: Member) -> None:
        asked = self._leader() or member
        if not asked.alive or asked.stalled:
            return
        change = self._draw_change()
        asked.note("is asked for", change)
        try:
            asked.node.propose_conf_change(change)
            self.counts["membership change proposed"] += 1
        except (ConfChangeRefused, ProposalDropped, NoLeader) as err:
            self.counts[f"membership change {type(err).__name__}"] += 1
        asked.pump()

    def _draw_change(self) -> ConfChange:
        now, dice = self.membership, self.dice
        if now.joint and not now.auto_leave:
            return ConfChange.leave()
        voters, learners = sorted(now.voters), sorted(now.learners)
        changes = []
        for _ in range(dice.choice([1, 1, 2, 3])):
            kind = dice.choice(["add", "add learner", "promote", "demote", "remove"])
            if kind in ("add", "add learner") and len(self.members) < MEMBERS_MAX:
                id = max(self.members) + 1
                self._new_member(id).start()
                changes.append(Change(ChangeType.ADD_VOTER if kind == "add" else ChangeType.ADD_LEARNER, id))
            elif kind == "promote" and learners:
                changes.append(Change(ChangeType.ADD_VOTER, dice.choice(learners)))
            elif kind == "demote" and len(voters) > 2:
                changes.append(Change(ChangeType.ADD_LEARNER, dice.choice(voters)))
            elif len(voters) > 1:
                changes.append(Change(ChangeType.REMOVE, voters.pop(dice.randrange(len(voters)))))
        if not changes:
            changes = [Change(ChangeType.ADD_VOTER, dice.choice(sorted(now.voters)))]
        return ConfChange(tuple(changes), dice.choice(list(Transition)))

    # -- clients -------------------------------------------------------------------------------------------------

    def _act(self, client: int) -> None:
        """One operation of a client; the next one when it has its answer or is tired of waiting."""
        if not self._chaos:
            return
        dice = self.dice
        member = self.members[dice.choice(sorted(self.members))]
        if dice.random() < self.plan.at_leader:
            member = self._leader() or member
        if not member.alive or member.stalled:
            self.later(dice.random() * 10, self._act, client)
            return
        operation = self._draw_operation()
        accepted = member.read(operation) if operation.kind == "get" else member.write(operation)
        if accepted:
            self.history.append(operation)
        if accepted and operation.returned == float("inf") and dice.random() >= self.plan.impatience:
            self._waits_for[client] = operation
            self.later(dice.random() * 40, self._give_up, client, operation)
        else:
            self.later(dice.random() * self.plan.think_ticks, self._act, client)

    def _give_up(self, client: int, operation: Operation) -> None:
        if self._waits_for.get(client) is operation:
            del self._waits_for[client]
            self._act(client)

    def _draw_operation(self) -> Operation:
        dice = self.dice
        key, kind = dice.choice(KEYS), dice.choice(["put", "put", "cas", "get", "get"])
        self._instant += 1
        operation = Operation(key, kind, invoked=self._instant)
        if kind != "get":
            self._written += 1
            operation.written = str(self._written)
        if kind == "cas":
            seen = [op.written for op in self.history[-8:] if op.key == key and op.written]
            operation.expected = dice.choice(seen) if seen else str(self._written)
        return operation

    def answer(self, operation: Operation, result: Any) -> None:
        """A member answers a client."""
        if operation.returned == float("inf"):
            self._instant += 1
            operation.returned, operation.result = self._instant, result
            self.counts["answered " + operation.kind] += 1
            for client, awaited in self._waits_for.items():
                if awaited is operation:
                    del self._waits_for[client]
                    self.later(self.dice.random() * self.plan.think_ticks, self._act, client)
                    return

    def _check_history(self) -> None:
        for key in KEYS:
            verdict = is_linearizable([op for op in self.history if op.key == key])
            if verdict is None:
                self.counts["history too hard to check"] += 1
            if verdict is False:
                self.trace.note(self.now, 0, "history of", key)
                for op in self.history:
                    if op.key == key:
                        self.trace.note(self.now, 0, "", op)
            check(verdict is not False, "the history is linearizable", key=key)

    # -- healing -------------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        """End all misfortune: everybody is up, everything arrives, clocks agree."""
        self._chaos = False
        self.trace.note(self.now, 0, "everything is healed")
        self._network.heal()
        self._network.weather = Weather(delay=0.1)
        self.plan.disk_delay = 0.05
        for id in sorted(self.members):
            member = self.members[id]
            member.stalled, member.speed = False, 1.0
            if not member.alive:
                member.start()
        self._final = f"put final {self.seed} "
        self.later(40, self._propose_last)

    def _propose_last(self) -> None:
        """One more write, after all that is still on its way; repeated until it is applied everywhere."""
        leader = self._leader()
        if leader is not None and not self._has_settled():
            if (
                leader.machine.conf_state
                and leader.machine.conf_state.joint
                and not leader.machine.conf_state.auto_leave
            ):
                try:
                    leader.node.propose_conf_change(ConfChange.leave())
                except (ConfChangeRefused, ProposalDropped):
                    pass
            try:
                leader.node.propose([self._final.encode()])
            except ProposalDropped:
                pass
            leader.pump()
        self.later(20, self._propose_last)

    def _has_settled(self) -> bool:
        return not self._chaos and not self._what_is_missing()

    def _what_is_missing(self) -> str:
        conf = self.membership
        if conf.joint:
            return "the joint configuration is not left"
        for id in sorted(conf.members):
            member = self.members[id]
            if member.machine.values.get("final") != str(self.seed):
                return f"member {id} lacks the last write"
            if member.machine.index != self.facts.chosen_last:
                return f"member {id} is at {member.machine.index} of {self.facts.chosen_last}"
        return ""
