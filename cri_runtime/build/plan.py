"""Which stages a build needs, and in which order. Pure.

A stage needs the stage it begins from and those it copies from; what the target does not need is not built.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from cri_runtime.build.errors import PlanError
from cri_runtime.build.instructions import Arg, Copy, From, Instruction, Run
from cri_runtime.build.state import PROXY_ARGS
from cri_runtime.build.words import WordError, expand
from cri_runtime.images.manifest import Platform

SCRATCH = "scratch"


@dataclass(frozen=True)
class Stage:
    """One FROM and what follows."""

    number: int
    name: str | None
    line: int
    base: "int | str"
    """Number of an earlier stage, an image, or ``scratch``."""
    platform: str
    instructions: tuple[Instruction, ...]

    @property
    def title(self) -> str:
        """For people."""
        return self.name or str(self.number)


@dataclass(frozen=True)
class Plan:
    """What to build, each stage after those it needs; the last is the target."""

    stages: tuple[Stage, ...]
    global_args: Mapping[str, str]
    """Values of the ARGs before the first FROM, which a stage's ARG of the same name takes up."""
    unused_args: tuple[str, ...]
    """Build arguments that no ARG of the file declares."""


def platform_args(platform: Platform) -> dict[str, str]:
    """The arguments that are there without being given."""
    host = Platform.host()
    return {
        **{f"TARGET{key}": value for key, value in _platform_parts(platform)},
        **{f"BUILD{key}": value for key, value in _platform_parts(host)},
    }


def _platform_parts(platform: Platform) -> Iterator[tuple[str, str]]:
    yield "PLATFORM", str(platform)
    yield "OS", platform.os
    yield "ARCH", platform.architecture
    yield "VARIANT", platform.variant


_PREDEFINED = PROXY_ARGS | {"SOURCE_DATE_EPOCH"}


def plan_build(
    instructions: Sequence[Instruction],
    build_args: Mapping[str, str],
    target: str = "",
    platform: Platform | None = None,
    escape: str = "\\",
) -> Plan:
    """Arrange the stages for ``target`` (a name or number; empty: the last). Raises PlanError."""
    automatic = platform_args(platform or Platform.host())
    global_args = _global_args(instructions, {**automatic, **build_args}, automatic, escape)
    stages = _stages(instructions, global_args, escape)
    wanted = _target(stages, target)
    declared = {name for i in instructions if isinstance(i, Arg) for name, _ in i.pairs}
    return Plan(
        tuple(stages[number] for number in sorted(_needed(stages, wanted))),
        global_args,
        tuple(sorted(set(build_args) - declared - _PREDEFINED - set(automatic))),
    )


def _global_args(
    instructions: Sequence[Instruction], given: Mapping[str, str], automatic: Mapping[str, str], escape: str
) -> dict[str, str]:
    values = dict(automatic)
    for instruction in instructions:
        if isinstance(instruction, From):
            break
        for name, default in instruction.pairs if isinstance(instruction, Arg) else ():
            if name in given:
                values[name] = given[name]
            elif default is not None:
                values[name] = _expand(default, values, escape, instruction.line)
    return values


def _stages(instructions: Sequence[Instruction], args: Mapping[str, str], escape: str) -> list[Stage]:
    starts = [at for at, instruction in enumerate(instructions) if isinstance(instruction, From)]
    stages: list[Stage] = []
    for start, end in zip(starts, [*starts[1:], len(instructions)], strict=True):
        begin = instructions[start]
        assert isinstance(begin, From)  # by the choice of starts
        if begin.name and any(stage.name == begin.name for stage in stages):
            raise PlanError(begin.line, f'two stages are named "{begin.name}"')
        stages.append(
            Stage(
                len(stages),
                begin.name,
                begin.line,
                _base(begin, stages, args, escape),
                _expand(begin.platform, args, escape, begin.line),
                tuple(instructions[start + 1 : end]),
            )
        )
    return stages


def _base(begin: From, earlier: Sequence[Stage], args: Mapping[str, str], escape: str) -> int | str:
    image = _expand(begin.image, args, escape, begin.line)
    if not image:
        raise PlanError(begin.line, f"FROM {begin.image} is empty: give the variable a value with ARG or --build-arg")
    named = next((stage for stage in earlier if stage.name == image.lower()), None)
    return image if named is None else named.number


def find_stage(reference: str, stage: Stage, stages: Mapping[int, Stage]) -> int | None:
    """Which earlier stage ``COPY --from=reference`` in ``stage`` means; None: an image.

    ``stages`` by number; it may lack those that are not needed.
    """
    for other in stages.values():
        if other.number < stage.number and reference.lower() in (other.name, str(other.number)):
            return other.number
    return None


def _target(stages: Sequence[Stage], target: str) -> Stage:
    if not target:
        return stages[-1]
    for stage in stages:
        if target.lower() in (stage.name, str(stage.number)):
            return stage
    names = [stage.name for stage in stages if stage.name]
    close = get_close_matches(target.lower(), names, 1)
    hint = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(names) or 'no named stages'}"
    raise PlanError(0, f'the Dockerfile has no stage "{target}"{hint}')


def _needed(stages: Sequence[Stage], wanted: Stage) -> set[int]:
    needed: set[int] = set()
    todo = [wanted.number]
    by_number = {stage.number: stage for stage in stages}
    while todo:
        number = todo.pop()
        if number not in needed:
            needed.add(number)
            todo += _uses(by_number[number], by_number)
    return needed


def _uses(stage: Stage, stages: Mapping[int, Stage]) -> Iterator[int]:
    if isinstance(stage.base, int):
        yield stage.base
    for instruction in stage.instructions:
        for name in _sources(instruction):
            number = find_stage(name, stage, stages)
            if number is not None:
                yield number
            else:
                _refuse_later_stage(instruction, name, stage, stages)


def _sources(instruction: Instruction) -> Iterator[str]:
    """Which stages or images an instruction takes files from."""
    names = [instruction.from_] if isinstance(instruction, Copy) else []
    names += [mount.from_ for mount in instruction.mounts] if isinstance(instruction, Run) else []
    return filter(None, names)


def _refuse_later_stage(instruction: Instruction, source: str, stage: Stage, stages: Mapping[int, Stage]) -> None:
    """A stage that takes from itself or from a later one would wait for itself; a number is never an image."""
    name = source.lower()
    known = any(name in (other.name, str(other.number)) for other in stages.values())
    if known or name.isdecimal():
        what = "itself" if name in (stage.name, str(stage.number)) else f'stage "{name}"'
        raise PlanError(
            instruction.line, f"--from={name}: stage {stage.title} can only copy from earlier stages, not {what}"
        )


def _expand(text: str, args: Mapping[str, str], escape: str, line: int) -> str:
    try:
        return expand(text, args, escape)
    except WordError as err:
        raise PlanError(line, str(err)) from err
