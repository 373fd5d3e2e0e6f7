"""The judge of histories, judged on histories of which the verdict is known."""

import pytest
from sim.linearizability import NEVER, Operation, is_linearizable


def put(value: str, invoked: float, returned: float = NEVER) -> Operation:
    return Operation("k", "put", value, invoked=invoked, returned=returned)


def get(value: str | None, invoked: float, returned: float) -> Operation:
    return Operation("k", "get", invoked=invoked, returned=returned, result=value)


def cas(expected: str, value: str, found: str | None, invoked: float, returned: float) -> Operation:
    return Operation("k", "cas", value, expected, invoked, returned, found)


@pytest.mark.parametrize(
    ("history", "verdict"),
    [
        ([], True),
        ([get(None, 1, 2)], True),
        ([put("a", 1, 2), get("a", 3, 4)], True),
        ([put("a", 1, 2), get(None, 3, 4)], False),
        ([put("a", 1, 4), get(None, 2, 3)], True),
        ([put("a", 1, 2), put("b", 3, 4), get("a", 5, 6)], False),
        ([put("a", 1, 6), put("b", 2, 5), get("b", 7, 8)], True),
        ([put("a", 1, 6), get("a", 2, 3), get(None, 4, 5)], False),
        ([put("a", 1), get(None, 2, 3), get("a", 4, 5), get("a", 6, 7)], True),
        ([put("a", 1), get("a", 4, 5), get(None, 6, 7)], False),
        ([put("a", 1, 2), cas("a", "b", "a", 3, 4), get("b", 5, 6)], True),
        ([put("a", 1, 2), cas("x", "b", "a", 3, 4), get("b", 5, 6)], False),
        ([put("a", 1, 2), cas("a", "b", "a", 3, 4), cas("a", "c", "a", 5, 6)], False),
    ],
)
def test_verdict(history: list[Operation], verdict: bool) -> None:
    assert is_linearizable(history) is verdict


def test_search_is_given_up() -> None:
    history = [put(str(n), n, 1000 + n) for n in range(20)] + [get("never", 2000, 2001)]
    assert is_linearizable(history, states_max=100) is None
