"""What must hold after every step: Raft Figure 3, and one vote per term.

Each property is checked against what was ever seen of it anywhere, so that a step costs only what it changed.
"""

from typing import Any

from raftstore.errors import check
from raftstore.raft.message import MsgVoteResp
from raftstore.raft.node import Node, Role
from raftstore.raft.types import Entry


class Facts:
    """All that was ever true in one run."""

    def __init__(self) -> None:
        self.leaders: dict[int, int] = {}
        self._entries: dict[tuple[int, int], tuple[int | None, bytes, int]] = {}
        self.chosen: dict[int, int] = {}
        """Term of the entry committed at each index."""
        self.chosen_last = 0
        self._applied: dict[int, tuple[int, bytes, int]] = {}
        self._states: dict[int, Any] = {}
        self._votes: dict[tuple[int, int], int] = {}
        self._terms: dict[int, int] = {}
        self._committed: dict[int, int] = {}

    def restarted(self, node: Node) -> None:
        """A member begins anew from its disk."""
        self._committed[node.id] = node.log.applied

    def observe(self, node: Node) -> None:
        """A member has taken a step."""
        if node.role is Role.LEADER and self.leaders.get(node.term) != node.id:
            self._new_leader(node)
        if node.log.committed > self._committed[node.id]:
            self._newly_committed(node)

    def _new_leader(self, node: Node) -> None:
        first = self.leaders.setdefault(node.term, node.id)
        check(first == node.id, "election safety: one leader per term", term=node.term, leaders=(first, node.id))
        last = self.chosen_last
        if last >= node.log.first_index and self.chosen[last] < node.term:
            # One entry is enough: by log matching, checked below, all before it agree.
            check(node.log.term(last) == self.chosen[last], "leader completeness", leader=node.id, index=last)

    def _newly_committed(self, node: Node) -> None:
        log = node.log
        for index in range(max(self._committed[node.id] + 1, log.first_index), log.committed + 1):
            term = log.term(index)
            assert term is not None
            check(self.chosen.setdefault(index, term) == term, "committed entries agree", index=index, member=node.id)
        self.chosen_last = max(self.chosen_last, log.committed)
        self.chosen.setdefault(log.committed, log.term(log.committed) or 0)
        self._committed[node.id] = log.committed

    def appended(self, node: Node, entries: list[Entry]) -> None:
        """Log matching: same index and term, same entry and same entry before it; by induction, same prefix."""
        for entry in entries:
            known = (node.log.term(entry.index - 1), entry.data, entry.kind)
            first = self._entries.setdefault((entry.index, entry.term), known)
            if first[0] is None or known[0] is None:
                first = (known[0], *first[1:])
            check(first == known, "log matching", member=node.id, index=entry.index, term=entry.term)

    def voted(self, message: MsgVoteResp) -> None:
        """One vote per member and term, whatever crashes lie between (Raft §5.2)."""
        if message.granted and not message.pre:
            first = self._votes.setdefault((message.sender, message.term), message.to)
            check(first == message.to, "one vote per term", member=message.sender, term=message.term)

    def applied(self, member: int, entry: Entry, state: Any) -> None:
        """State machine safety: all apply the same entries, and are the same after each."""
        mine = (entry.term, entry.data, entry.kind)
        first = self._applied.setdefault(entry.index, mine)
        check(first == mine, "state machine safety: same entry", member=member, index=entry.index)
        same = self._states.setdefault(entry.index, state)
        check(same == state, "state machine safety: same state", member=member, index=entry.index)
