"""A member's disk: a log in the framing of ``raftstore.wal.record``, and the machine's last checkpoint.

A batch is confirmed when it is synchronised. A crash keeps all that was confirmed, and of a batch under way nothing,
a torn part, or all of it.
"""

import random
from struct import Struct
from typing import Any

from raftstore.raft.types import Entry, EntryKind, HardState
from raftstore.wal.record import (
    Kind,
    encode_batch,
    entry_payload,
    parse_entry,
    parse_state,
    scan_segment,
    state_payload,
)

_CONF_CHANGE = 200
"""Record kind of an entry with a change of members; the simulation's own."""
_RESET = 201
"""Record kind: the log begins anew after this index; the simulation's own."""
_INDEX = Struct("<Q")


class Disk:
    """What survives a crash."""

    def __init__(self) -> None:
        self.log = bytearray()
        self.checkpoint: Any = None
        """The machine's state; replaced atomically."""
        self._under_way = b""
        self._batch = 0
        self._ends: list[int] = []

    def begin(self, hard_state: HardState | None, entries: list[Entry], log_start: int | None = None) -> None:
        """Start to write a batch."""
        items: list[tuple[Any, bytes]] = []
        if log_start is not None:
            items.append((_RESET, _INDEX.pack(log_start)))
        for entry in entries:
            kind = _CONF_CHANGE if entry.kind is EntryKind.CONF_CHANGE else Kind.ENTRY
            items.append((kind, entry_payload(entry)))
        if hard_state is not None:
            items.append((Kind.HARD_STATE, state_payload(hard_state)))
        self._under_way = encode_batch(self._batch + 1, items) if items else b""

    def confirm(self) -> None:
        """The batch is synchronised."""
        if self._under_way:
            self.log += self._under_way
            self._batch += 1
            self._ends.append(len(self.log))
        self._under_way = b""

    def crash(self, dice: random.Random) -> str:
        """Lose power; says what became of the batch under way."""
        batch, self._under_way = self._under_way, b""
        if not batch:
            return "idle"
        kept = dice.choice([0, len(batch), dice.randrange(len(batch))])
        self.log += batch[:kept]
        if 0 < kept < len(batch) and dice.random() < 0.5:  # torn inside: a later sector is there, an earlier is not
            hole = len(self.log) - dice.randrange(kept) - 1
            self.log[hole] ^= 0xFF
        return "kept" if kept == len(batch) else "torn" if kept else "lost"

    def lose_confirmed(self) -> bool:
        """A disk that lied: the last confirmed batch was never there."""
        if len(self._ends) < 2:
            return False
        del self.log[self._ends[-2] :]
        self._ends.pop()
        self._batch -= 1
        return True

    def recover(self) -> tuple[HardState, list[Entry]]:
        """Read all back and cut off what is torn."""
        scan = scan_segment(memoryview(bytes(self.log)))
        del self.log[scan.end :]
        self.log += bytes(scan.end - len(self.log))  # only the last padding was torn
        self._batch = scan.batch
        self._ends = [end for end in self._ends if end <= scan.end]
        if not self._ends or self._ends[-1] != scan.end:
            self._ends.append(scan.end)
        state, entries = HardState(), list[Entry]()
        for record in scan.records:
            if record.kind == Kind.HARD_STATE:
                state = parse_state(record.payload)
            elif record.kind == _RESET:
                entries = []
            else:
                entry = parse_entry(record.payload)
                entry.kind = EntryKind.CONF_CHANGE if record.kind == _CONF_CHANGE else EntryKind.COMMAND
                if entries:
                    del entries[entry.index - entries[0].index :]
                entries.append(entry)
        return state, entries
