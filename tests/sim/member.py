"""One simulated member: core, disk, and a machine of registers. ``raftstore/member.py`` in virtual time."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sim.disk import Disk
from sim.linearizability import Operation

from raftstore.errors import NoLeader
from raftstore.raft.confchange import ConfChange
from raftstore.raft.errors import ProposalDropped
from raftstore.raft.log import RaftLog
from raftstore.raft.message import Message, MsgSnap, MsgVoteResp
from raftstore.raft.node import Config, Node, Ready, Role
from raftstore.raft.types import ConfState, Entry, EntryKind, ReadState, Snapshot

if TYPE_CHECKING:
    from sim.world import World


@dataclass(slots=True)
class Machine:
    """The replicated state: registers, and the membership that goes with them."""

    index: int = 0
    term: int = 0
    conf_state: ConfState | None = None
    values: dict[str, str] = field(default_factory=dict)
    digest: int = 0
    """Of all that was ever applied."""

    def copy(self) -> "Machine":
        return replace(self, values=dict(self.values))

    def apply(self, entry: Entry) -> str | None:
        """Carry out a command; returns the value that was there before."""
        self.index, self.term = entry.index, entry.term
        self.digest = hash((self.digest, entry.index, entry.term, len(entry.data)))
        if entry.kind is not EntryKind.COMMAND or not entry.data:
            return None
        kind, key, written, expected = entry.data.decode().split(" ")
        before = self.values.get(key)
        if kind == "put" or (before or "") == expected:
            self.values[key] = written
        return before


@dataclass(slots=True)
class Read:
    """A read that waits for its index to be applied."""

    index: int
    operation: Operation


class Member:
    """A process that can be killed, and its disk, which stays."""

    def __init__(self, world: "World", id: int, settings: dict[str, Any]) -> None:
        self.world = world
        self.id = id
        self.settings = settings
        self.disk = Disk()
        self.life = 0
        """Counts restarts; what was planned in an earlier life does not happen."""
        self.alive = False
        self.stalled = False
        self.speed = 1.0
        """Ticks of this member per tick of the world."""
        self.node: Node
        self.machine = Machine()
        self._writing = False
        self._inbox: list[Message] = []
        self._writes: dict[str, Operation] = {}
        self._asked: dict[int, Operation] = {}
        self._reads: list[Read] = []
        self._snapshots: dict[int, Machine] = {}

    # -- life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin from what the disk holds."""
        self.life += 1
        self.alive, self.stalled, self._writing = True, False, False
        state, entries = self.disk.recover()
        self.machine = self.disk.checkpoint.copy() if self.disk.checkpoint else Machine()
        log = RaftLog.recover((self.machine.index, self.machine.term), entries, state.commit)
        dice, ticks = self.world.dice, self.settings["election_ticks"]
        config = Config(
            self.id, spread_ticks=lambda: dice.randrange(ticks), snapshot=self._make_snapshot, **self.settings
        )
        self.node = Node(config, log, state, self.machine.conf_state)
        self.world.facts.restarted(self.node)
        self.note("starts", f"term {state.term} log {log.first_index}..{log.last_index} applied {log.applied}")
        self.later(self.world.dice.random() / self.speed, self._tick)
        self.pump()

    def kill(self) -> None:
        """Lose everything but what the disk has, and maybe what it was about to have."""
        what = self.disk.crash(self.world.dice)
        self.world.counts["crash, batch " + what] += 1
        self.note("is killed, batch under way is", what)
        self.alive = False
        self.life += 1
        for forgotten in (self._inbox, self._writes, self._asked, self._reads, self._snapshots):
            forgotten.clear()

    def note(self, what: str, about: Any = "") -> None:
        self.world.trace.note(self.world.now, self.id, what, about)

    def later(self, delay: float, action: Any, *args: Any) -> None:
        """Do something then, unless this life has ended."""
        self.world.later(delay, self._in_life, self.life, action, args)

    def _in_life(self, life: int, action: Any, args: tuple[Any, ...]) -> None:
        if life != self.life:
            return
        if self.stalled:
            self.later(1.0, action, *args)  # the process is stopped: it all happens when it goes on
        else:
            action(*args)

    def _tick(self) -> None:
        self.later(1.0 / self.speed, self._tick)
        role = self.node.role
        self.node.tick()
        if self.node.role is not role:
            self.note("becomes", f"{self.node.role.value} in term {self.node.term}")
        self.pump()

    def receive(self, message: Message) -> None:
        """A message arrives at this machine; nobody may be there."""
        if self.alive:
            self.later(0, self._step, message)

    def _step(self, message: Message) -> None:
        self.note("gets", message)
        role = self.node.role
        self.node.step(message)
        if self.node.role is not role:
            self.note("becomes", f"{self.node.role.value} in term {self.node.term}")
            if self.node.role is Role.LEADER:
                self.world.counts["elected"] += 1
        self.pump()

    # -- the order of Node ---------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Carry out what is ready until the disk has to be waited for."""
        node = self.node
        self.world.facts.observe(node)
        while not self._writing and node.has_ready():
            ready = node.ready()
            self._send(ready.messages)
            self._take_reads(ready.read_states)
            self.world.facts.appended(node, ready.entries)
            if ready.snapshot is not None:
                self._install(ready.snapshot)
            for entry in ready.committed:
                self._apply(entry)
            if ready.entries or ready.hard_state is not None or ready.log_start is not None:
                self.disk.begin(ready.hard_state, ready.entries, ready.log_start)
                self._writing = True
                self.later(self.world.disk_delay(self), self._written, ready)
            else:
                self._finish(ready)
        if self._writing:
            self._send(node.take_messages())
            self._take_reads(node.take_read_states())
        self._serve_reads()

    def _written(self, ready: Ready) -> None:
        if self.world.disk_fails(self):
            self.note("cannot synchronise its disk and stops")
            self.world.counts["fsync failed"] += 1
            self.world.crash(self)
            return
        self.disk.confirm()
        self._writing = False
        self._finish(ready)
        self.pump()

    def _finish(self, ready: Ready) -> None:
        self._send(ready.promises)
        self.node.advance(ready)
        self.world.facts.observe(self.node)

    def _send(self, messages: list[Message]) -> None:
        for message in messages:
            if type(message) is MsgVoteResp:
                self.world.facts.voted(message)
            if type(message) is MsgSnap:
                self._send_snapshot(message)
            elif not self.world.send(self.id, message) and self.world.dice.random() < 0.3:
                self.world.counts["reported unreachable"] += 1
                self.node.report_unreachable(message.to)

    # -- the machine ---------------------------------------------------------------------------------------------

    def _apply(self, entry: Entry) -> None:
        before = self.machine.apply(entry)
        if entry.kind is EntryKind.CONF_CHANGE:
            self.machine.conf_state = self.node.apply_conf_change(entry)
            self.note("applies", ConfChange.decode(entry.data))
            self.world.counts["membership is joint" if self.machine.conf_state.joint else "membership is simple"] += 1
        self.world.facts.applied(self.id, entry, self.machine.digest)
        operation = self._writes.pop(entry.data.decode("latin-1"), None) if entry.data else None
        if operation is not None:
            self.world.answer(operation, before)

    def checkpoint(self, keep: int) -> None:
        """Store the machine, and forget the log before it but for ``keep`` entries."""
        self.disk.checkpoint = self.machine.copy()
        self.node.log.compact(min(self.machine.index, self.node.log.applied) - keep)
        self.note("stores a checkpoint", self.machine.index)

    def _make_snapshot(self) -> Snapshot | None:
        machine = self.machine
        if machine.conf_state is None or self.world.dice.random() < 0.2:
            return None
        self._snapshots[machine.index] = machine.copy()
        return Snapshot(machine.index, machine.term, machine.conf_state)

    def _send_snapshot(self, message: MsgSnap) -> None:
        data = self._snapshots.pop(message.snapshot.index, None)
        if data is None:
            data = self.machine.copy()
            assert data.index == message.snapshot.index, "a snapshot is sent in the step in which it is made"
        arrives = self.world.send(self.id, message, data)
        self.world.counts["snapshot sent"] += 1
        if arrives or self.world.dice.random() < 0.7:
            self.later(2.0, self._report_snapshot, message.to, arrives)
        else:
            self.later(50.0, self._report_snapshot, message.to, False)

    def _report_snapshot(self, to: int, arrived: bool) -> None:
        self.node.report_snapshot(to, arrived)
        self.pump()

    def receive_snapshot(self, message: MsgSnap, data: Machine) -> None:
        """A snapshot has arrived whole."""
        if self.alive:
            self._snapshots[data.index] = data
            self.later(0, self._step, message)

    def _install(self, snapshot: Snapshot) -> None:
        self.machine = self._snapshots.pop(snapshot.index).copy()
        self.disk.checkpoint = self.machine.copy()
        self.world.counts["snapshot installed"] += 1
        self.note("installs a snapshot at", snapshot.index)
        if self.world.disk_fails(self, 0.1):
            self.world.counts["crash between snapshot and log"] += 1
            self.later(0, self.world.crash, self)

    # -- clients -------------------------------------------------------------------------------------------------

    def write(self, operation: Operation) -> bool:
        """Propose a put or cas; False if it surely does not happen."""
        command = f"{operation.kind} {operation.key} {operation.written} {operation.expected or ''}"
        try:
            if not self.node.propose([command.encode()]):
                self.world.counts["proposal forwarded"] += 1
        except (NoLeader, ProposalDropped) as err:
            self.world.counts[type(err).__name__] += 1
            return False
        self._writes[command] = operation
        self.pump()
        return True

    def read(self, operation: Operation) -> bool:
        """Ask for a linearizable read; False if nobody can be asked."""
        self.world.reads += 1
        context = self.world.reads
        try:
            index = self.node.read_index(context)
        except NoLeader:
            return False
        if index is not None:
            self.world.counts["read under lease or alone"] += 1
            self._reads.append(Read(index, operation))
        else:
            self._asked[context] = operation
        self.pump()
        return True

    def _take_reads(self, states: list[ReadState]) -> None:
        for state in states:
            operation = self._asked.pop(state.context, None)
            if operation is not None:
                self._reads.append(Read(state.index, operation))

    def _serve_reads(self) -> None:
        waiting = []
        for read in self._reads:
            if read.index <= self.machine.index:
                self.world.counts["read served"] += 1
                self.world.answer(read.operation, self.machine.values.get(read.operation.key))
            else:
                waiting.append(read)
        self._reads = waiting
