"""Which stages a build needs."""

import pytest

from cri_runtime.build.errors import PlanError
from cri_runtime.build.instructions import read
from cri_runtime.build.parser import parse
from cri_runtime.build.plan import Plan, plan_build

STAGES = """
ARG BASE=alpine
FROM $BASE AS base
FROM base AS build
COPY --from=tools x y
FROM golang AS tools
FROM scratch AS final
COPY --from=build a b
COPY --from=busybox c d
FROM final AS debug
"""


def plan(text: str, target: str = "", **args: str) -> Plan:
    """Plan a Dockerfile."""
    return plan_build(read(parse(text.encode())), args, target)


def test_only_what_the_target_needs_is_built() -> None:
    text = STAGES.replace("COPY --from=tools x y\n", "")
    assert [s.name for s in plan(text).stages] == ["base", "build", "final", "debug"]
    assert [s.name for s in plan(text, "build").stages] == ["base", "build"]
    assert [s.name for s in plan(text, "TOOLS").stages] == ["tools"]
    assert [s.name for s in plan(text, "2").stages] == ["tools"]


def test_global_arguments_choose_the_base() -> None:
    assert plan("ARG V=1\nFROM a:$V").stages[0].base == "a:1"
    assert plan("ARG V=1\nFROM a:$V", V="2").stages[0].base == "a:2"
    assert plan("ARG A=x\nARG B=$A-y\nFROM $B").stages[0].base == "x-y"
    assert plan("FROM --platform=$BUILDPLATFORM a").stages[0].platform.startswith("linux/")


@pytest.mark.parametrize(
    ("text", "target", "says"),
    [
        (STAGES, "", "Dockerfile:5: --from=tools: stage build can only copy from earlier stages"),
        ("FROM a AS x\nCOPY --from=x a b", "", "not itself"),
        ("FROM a\nCOPY --from=7 a b", "", "--from=7"),
        ("FROM a AS x\nFROM b AS x", "", 'two stages are named "x"'),
        ("FROM $NOTHING", "", "FROM $NOTHING is empty"),
        ("FROM a AS build", "biuld", "did you mean build"),
        ("FROM a", "x", "no named stages"),
    ],
)
def test_stages_that_do_not_fit_are_named(text: str, target: str, says: str) -> None:
    with pytest.raises(PlanError) as caught:
        plan(text, target)
    assert says in str(caught.value)


def test_arguments_that_nothing_takes_are_told() -> None:
    assert plan("FROM a\nARG X", X="1", Y="2", HTTP_PROXY="p").unused_args == ("Y",)
