"""Is a history of one register linearizable? The search of Wing and Gong with Lowe's memory of states seen.

An operation takes effect at one instant between its invocation and its return. We look for an order of all of them
that agrees with those intervals and with a register. An operation whose outcome nobody learnt may take effect at any
time after its invocation, or never.
"""

from dataclasses import dataclass
from typing import Any

NEVER = float("inf")


@dataclass(slots=True)
class Operation:
    """One operation on one key. Values that are written are unique in the history."""

    key: str
    kind: str
    """``put``, ``cas`` or ``get``."""
    written: Any = None
    expected: Any = None
    """What ``cas`` compares with."""
    invoked: float = 0
    returned: float = NEVER
    result: Any = None
    """``get``: the value; ``cas``: the value it found."""

    def apply(self, value: Any) -> tuple[bool, Any]:
        """Whether the register at ``value`` explains this operation, and its value afterwards."""
        known = self.returned != NEVER
        if self.kind == "put":
            return True, self.written
        if self.kind == "get":
            return self.result == value, value
        if known and self.result != value:
            return False, value
        return True, self.written if value == self.expected else value


def is_linearizable(operations: list[Operation], states_max: int = 50_000) -> bool | None:
    """Whether an order exists; None if the search was given up."""
    operations = sorted(_relevant(operations), key=lambda op: op.invoked)
    must = sum(1 << at for at, op in enumerate(operations) if op.returned != NEVER)
    seen: set[tuple[int, Any]] = set()
    stack: list[tuple[int, Any]] = [(0, None)]
    while stack:
        done, value = stack.pop()
        if done & must == must:
            return True
        if (done, value) in seen:
            continue
        seen.add((done, value))
        if len(seen) > states_max:
            return None
        stack += _successors(operations, done, value)
    return False


def _successors(operations: list[Operation], done: int, value: Any) -> list[tuple[int, Any]]:
    """The states after each operation that may be the next: none that is left returned before it was invoked."""
    found = []
    horizon = NEVER
    for at, op in enumerate(operations):
        if op.invoked > horizon:
            break
        if not done >> at & 1:
            horizon = min(horizon, op.returned)
            fits, after = op.apply(value)
            if fits:
                found.append((at, after))
    # Earlier returns are tried first (the stack reverses): in a sound history they mostly are the answer.
    found.sort(key=lambda step: -operations[step[0]].returned)
    return [(done | 1 << at, after) for at, after in found if operations[at].invoked <= horizon]


def _relevant(operations: list[Operation]) -> list[Operation]:
    """Leave out what proves nothing: reads without result, and lost writes that nobody ever saw."""
    observed = {op.result for op in operations if op.returned != NEVER and op.kind != "put"}
    observed |= {op.expected for op in operations if op.kind == "cas"}
    return [op for op in operations if op.returned != NEVER or (op.kind != "get" and op.written in observed)]
