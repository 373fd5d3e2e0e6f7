"""Why the cache missed: the rule, and what a build says."""

from typing import Any

import pytest

from cri_runtime.build.explain import why


@pytest.mark.parametrize(
    ("before", "now", "reason"),
    [
        ({}, {"below": "1"}, "no step at this place was built before"),
        ({"instruction": "COPY a b"}, {"instruction": "COPY a c"}, "the instruction was: COPY a b"),
        ({"below": "1"}, {"below": "2"}, "a step before it, or its base image, changed"),
        ({"below": "1"}, {"below": "1"}, "its layer is no longer in the store"),
        ({"file /a": "1", "file /b": "1"}, {"file /a": "2", "file /c": "1"}, "/a, /b, /c changed"),
        ({f"file /{n}": "1" for n in range(9)}, {}, "/0, /1, /2 and 6 more changed"),
        ({"variable A": "1", "below": "1"}, {"below": "2"}, "variable A changed, and a step before it"),
    ],
)
def test_reasons(before: dict[str, str], now: dict[str, str], reason: str) -> None:
    assert why(before, now).startswith(reason)


async def test_a_build_says_why(build: Any) -> None:
    text = "FROM scratch\nCOPY a b /\nCOPY c /"
    files = {"a": "1", "b": "1", "c": "1"}

    def reasons(result: Any) -> list[str]:
        return [line for _, status, line in result.steps if status == "missed"]

    assert reasons(await build(text, files)) == ["no step at this place was built before"] * 2
    assert reasons(await build(text, files)) == []
    changed = await build(text, {**files, "b": "2"})
    assert reasons(changed) == ["/b changed", "a step before it, or its base image, changed"]
    assert reasons(await build(text, files, use_cache=False)) == ["the cache was not to be used"] * 2
