"""Scenarios as readable scripts: ``scenarios/*.txt``, commands and what they must print.

A script is a row of blocks, each one command per line, a line ``----``, and the output up to an empty line. Lines that
begin with ``#`` explain. ``REWRITE=1 pytest`` puts in what is printed now: review it as a diff.

Commands (members are numbers; what waits on the network is kept until it is delivered or lost)::

    nodes 1 2 3 [learners=4,5] [option=value]   members born together; options are fields of Config
    node 1 voters=1,2,3 terms=1,1,4 [term=5] [commit=2]   one member with a log of such terms
    join 4                                   a member with nothing
    tick 1 10 | campaign 1 | propose 1 a b | read 1 7 | transfer 1 2 | compact 1 5 | unreachable 1 2
    change 1 +2 -3 ~4 [leave] [implicit] [explicit]   add voter, remove, add learner
    ready 1                                  carry out one Ready, print it
    save 1                                   carry out one Ready, but crash before its promises leave
    install 1                                likewise, and before the log is written
    deliver 2 [n] [1->2]                     step the messages that wait for 2 (the first n; those of 1)
    lose 1->2                                forget the messages that wait
    stabilize [1 2]                          carry out and deliver until nothing is left, print it
    quiet stabilize                          likewise without printing
    partition 1 | 2 3 | heal                 lose what would cross
    restart 1                                from what is saved
    status | logs | progress 1               print
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from raftstore.errors import EtcdError, InvariantBroken
from raftstore.raft.confchange import Change, ChangeType, ConfChange, Transition, bootstrap
from raftstore.raft.core import Config, ReadOption
from raftstore.raft.log import RaftLog
from raftstore.raft.message import Message, MsgSnap
from raftstore.raft.node import Node, Ready
from raftstore.raft.types import ConfState, Entry, EntryKind, HardState, Snapshot

SCENARIOS = Path(__file__).parent / "scenarios"


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.txt")), ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    text = path.read_text()
    actual = run(text)
    if os.environ.get("REWRITE"):
        path.write_text(actual)
    assert actual == text


def run(text: str) -> str:
    """The script with the output that it has now."""
    cluster, blocks = Cluster(), []
    for block in re.split(r"\n\n+", text.strip()):
        head = block.split("\n----")[0]
        lines = [line for line in head.split("\n") if not line.startswith("#")]
        if not lines:
            blocks.append(head)
            continue
        output = [printed for line in lines for printed in cluster.command(line)]
        blocks.append("\n".join([head, "----", *(output or ["ok"])]))
    return "\n\n".join(blocks) + "\n"


class Saved:
    """What one member's disk holds."""

    def __init__(self, state: HardState, entries: list[Entry], applied: tuple[int, int] = (0, 0)) -> None:
        self.state = state
        self.entries = entries
        self.applied = applied
        self.conf_state: ConfState | None = None

    def save(self, ready: Ready) -> None:
        if ready.hard_state is not None:
            self.state = ready.hard_state
        if ready.log_start is not None:
            self.entries = []
        if ready.entries and self.entries:
            del self.entries[ready.entries[0].index - self.entries[0].index :]
        self.entries += ready.entries


class Cluster:
    """Members and a network that does nothing by itself."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.disks: dict[int, Saved] = {}
        self.configs: dict[int, Config] = {}
        self.waiting: list[Message] = []
        self.sides: list[set[int]] = []

    def command(self, line: str) -> list[str]:
        """Run one line; returns what it prints."""
        quiet, line = line.startswith("quiet "), line.removeprefix("quiet ")
        name, *words = line.split()
        options = dict(word.split("=", 1) for word in words if "=" in word)
        words = [word for word in words if "=" not in word]
        before = {id: (node.role, node.term) for id, node in self.nodes.items()}
        try:
            printed = getattr(self, "do_" + name.replace("-", "_"))(*words, **options) or []
        except (EtcdError, InvariantBroken) as err:
            printed = [f"{type(err).__name__}: {err}"]
        return [] if quiet else printed + self._changes(before)

    def _changes(self, before: dict[int, object]) -> list[str]:
        return [
            f"{id} is {node.role.value} in term {node.term}"
            for id, node in self.nodes.items()
            if id in before and before[id] != (node.role, node.term)
        ]

    # -- members -------------------------------------------------------------------------------------------------

    def do_nodes(self, *ids: str, learners: str = "", **options: str) -> None:
        self.__init__()  # type: ignore[misc]
        born = bootstrap(int(id) for id in ids)
        for id in map(int, ids):
            self._add(id, Saved(born[0], list(born[1])), options)
        self.do_stabilize()
        for id in filter(None, learners.split(",")):
            self._add(int(id), Saved(HardState(), []), options)

    def do_node(self, id: str, voters: str, terms: str = "", term: str = "", commit: str = "0", **options: str) -> None:
        log = [Entry(index, int(at), f"{index}".encode()) for index, at in enumerate(filter(None, terms.split(",")), 1)]
        state = HardState(int(term or (log[-1].term if log else 0)), 0, int(commit))
        disk = Saved(state, log)
        disk.conf_state = ConfState(frozenset(map(int, voters.split(","))))
        self._add(int(id), disk, options)

    def do_join(self, id: str, **options: str) -> None:
        self._add(int(id), Saved(HardState(), []), options)

    def _add(self, id: int, disk: Saved, options: dict[str, str]) -> None:
        numbers = {name.replace("-", "_"): int(value) for name, value in options.items() if value.isdigit()}
        flags = {name.replace("-", "_"): value == "on" for name, value in options.items() if value in ("on", "off")}
        read = ReadOption(options.get("read", "safe"))
        self.configs[id] = Config(
            id,
            snapshot=lambda: self._snapshot(id),
            read_option=read,
            **numbers,
            **flags,  # type: ignore[arg-type]
        )
        self.disks[id] = disk
        self.do_restart(str(id))

    def _snapshot(self, id: int) -> Snapshot | None:
        disk = self.disks[id]
        return Snapshot(*disk.applied, disk.conf_state) if disk.conf_state else None

    def do_restart(self, id: str) -> None:
        disk = self.disks[int(id)]
        log = RaftLog.recover(disk.applied, disk.entries, disk.state.commit)
        self.nodes[int(id)] = Node(self.configs[int(id)], log, disk.state, disk.conf_state)

    # -- asking --------------------------------------------------------------------------------------------------

    def do_tick(self, id: str, count: str = "1") -> None:
        for _ in range(int(count)):
            self.nodes[int(id)].tick()

    def do_campaign(self, id: str) -> None:
        self.nodes[int(id)].campaign()

    def do_propose(self, id: str, *commands: str) -> None:
        self.nodes[int(id)].propose([command.encode() for command in commands])

    def do_read(self, id: str, context: str) -> list[str]:
        index = self.nodes[int(id)].read_index(int(context))
        return [f"{id} pending: leadership is not proved" if index is None else f"{id} reads at {index}"]

    def do_transfer(self, id: str, to: str) -> None:
        self.nodes[int(id)].transfer_leadership(int(to))

    def do_unreachable(self, id: str, to: str) -> None:
        self.nodes[int(id)].report_unreachable(int(to))

    def do_compact(self, id: str, index: str) -> None:
        self.nodes[int(id)].log.compact(int(index))

    def do_change(self, id: str, *words: str) -> None:
        kinds = {"+": ChangeType.ADD_VOTER, "-": ChangeType.REMOVE, "~": ChangeType.ADD_LEARNER}
        changes = [Change(kinds[word[0]], int(word[1:])) for word in words if word[0] in kinds]
        how = {"implicit": Transition.JOINT_IMPLICIT, "explicit": Transition.JOINT_EXPLICIT}
        transition = next((how[word] for word in words if word in how), Transition.AUTO)
        self.nodes[int(id)].propose_conf_change(ConfChange(tuple(changes), transition))

    # -- the shell -----------------------------------------------------------------------------------------------

    def do_ready(self, id: str, saves: bool = True, promises: bool = True) -> list[str]:
        node, disk = self.nodes[int(id)], self.disks[int(id)]
        if not node.has_ready():
            return [f"{id} has nothing ready"]
        ready = node.ready()
        if ready.snapshot is not None:
            disk.applied = (ready.snapshot.index, ready.snapshot.term)
            disk.conf_state = ready.snapshot.conf_state
        printed = [f"{id} {line}" for line in show_ready(ready)]
        for entry in ready.committed:
            disk.applied = (entry.index, entry.term)
            if entry.kind is EntryKind.CONF_CHANGE:
                disk.conf_state = node.apply_conf_change(entry)
                printed.append(f"{id} members: {show_conf(disk.conf_state)}")
            elif disk.conf_state is None:
                disk.conf_state = node.conf_state
        if saves:
            disk.save(ready)
        if promises:
            node.advance(ready)
            self._send([*ready.messages, *ready.promises])
        else:
            self._send(ready.messages)
        return printed

    def do_save(self, id: str) -> list[str]:
        printed = self.do_ready(id, promises=False)
        self.do_restart(id)
        return printed

    def do_install(self, id: str) -> list[str]:
        printed = self.do_ready(id, saves=False, promises=False)
        self.do_restart(id)
        return printed

    def _send(self, messages: list[Message]) -> None:
        for m in messages:
            cut = any((m.sender in side) != (m.to in side) for side in self.sides)
            if m.to in self.nodes and not cut:
                self.waiting.append(m)

    def do_deliver(self, to: str, count: str = "1000") -> list[str]:
        sender, _, to = to.rpartition("->")
        due = [m for m in self.waiting if m.to == int(to) and (not sender or m.sender == int(sender))][: int(count)]
        return [line for message in due for line in self._step(message)]

    def _step(self, message: Message) -> list[str]:
        self.waiting = [other for other in self.waiting if other is not message]
        self.nodes[message.to].step(message)
        return [show(message)]

    def do_lose(self, link: str) -> None:
        sender, to = map(int, link.split("->"))
        self.waiting = [m for m in self.waiting if (m.sender, m.to) != (sender, to)]

    def do_stabilize(self, *ids: str) -> list[str]:
        printed: list[str] = []
        chosen = [id for id in self.nodes if not ids or str(id) in ids]
        for _ in range(1000):
            ready = [id for id in chosen if self.nodes[id].has_ready()]
            due = [message for message in self.waiting if message.to in chosen]
            if not ready and not due:
                return printed
            for id in ready:
                printed += self.do_ready(str(id))
            for message in due:
                printed += self._step(message)
        raise AssertionError("never stable")

    def do_partition(self, *words: str) -> None:
        sides = " ".join(words).split("|")
        self.sides = [{int(id) for id in side.split()} for side in sides]

    def do_heal(self) -> None:
        self.sides = []

    # -- looking -------------------------------------------------------------------------------------------------

    def do_status(self) -> list[str]:
        return [
            f"{id} {node.role.value} term={node.term} leader={node.leader} commit={node.log.committed} "
            f"last={node.log.last_index}/{node.log.last_term}"
            for id, node in self.nodes.items()
        ]

    def do_logs(self) -> list[str]:
        return [
            f"{id} [{node.log.first_index}..{node.log.last_index}] "
            + " ".join(str(node.log.term(i)) for i in range(node.log.first_index, node.log.last_index + 1))
            for id, node in self.nodes.items()
        ]

    def do_progress(self, id: str) -> list[str]:
        return [
            f"{other} {p.state.value} match={p.match} next={p.next}"
            + (" paused" if p.is_paused else "")
            + (f" inflight={len(p.inflights)}" if len(p.inflights) else "")
            for other, p in self.nodes[int(id)].progress.items()
        ]


def show_ready(ready: Ready) -> list[str]:
    parts: dict[str, Callable[[], str]] = {
        "snapshot": lambda: f"installs {show_snapshot(ready.snapshot)}" if ready.snapshot else "",
        "start": lambda: "" if ready.log_start is None else f"begins its log anew after {ready.log_start}",
        "state": lambda: "saves term={} vote={} commit={}".format(*ready.hard_state) if ready.hard_state else "",
        "entries": lambda: f"appends {show_entries(ready.entries)}" if ready.entries else "",
        "committed": lambda: f"applies {show_entries(ready.committed)}" if ready.committed else "",
        "reads": lambda: " ".join(f"read {state.context} at {state.index}" for state in ready.read_states),
    }
    return [text for part in parts.values() if (text := part())]


def show_entries(entries: list[Entry]) -> str:
    return " ".join(f"{e.index}/{e.term}" + (f":{show_data(e)}" if e.data else "") for e in entries)


def show_data(entry: Entry) -> str:
    if entry.kind is not EntryKind.CONF_CHANGE:
        return entry.data.decode()
    signs = {ChangeType.ADD_VOTER: "+", ChangeType.REMOVE: "-", ChangeType.ADD_LEARNER: "~"}
    return "(" + "".join(f"{signs[c.type]}{c.id}" for c in ConfChange.decode(entry.data).changes) + ")"


def show_conf(conf: ConfState) -> str:
    parts = {"voters": conf.voters, "outgoing": conf.outgoing, "learners": conf.learners, "next": conf.learners_next}
    return " ".join(f"{name}={','.join(map(str, sorted(ids)))}" for name, ids in parts.items() if ids)


def show_snapshot(snapshot: Snapshot) -> str:
    return f"{snapshot.index}/{snapshot.term} {show_conf(snapshot.conf_state)}"


def show(m: Message) -> str:
    names = [name for name in type(m).__slots__ if name != "snapshot"]
    shown = {name: getattr(m, name) for name in names}
    if "entries" in shown:
        shown["entries"] = f"[{show_entries(shown['entries'])}]"
    if "proposals" in shown:
        shown["proposals"] = [data.decode() for data, _ in shown["proposals"]]
    fields = " ".join(
        f"{name}={value}" for name, value in shown.items() if value not in (False, 0) or name == "granted"
    )
    snapshot = show_snapshot(m.snapshot) if isinstance(m, MsgSnap) else ""
    return " ".join(filter(None, [f"{m.sender}->{m.to}", type(m).__name__, f"term={m.term}", fields, snapshot]))
