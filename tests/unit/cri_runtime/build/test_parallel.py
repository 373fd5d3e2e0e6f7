"""Stages that do not need one another are built at once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cri_runtime.build.errors import StepFailed
from cri_runtime.build.runner import Output, Ran
from cri_runtime.build.state import RunCommand


class Meeting:
    """Runs nothing: each command ends when as many as expected run at once."""

    def __init__(self, tmp_path: Path, expected: int) -> None:
        self.upper = tmp_path / "upper"
        self.upper.mkdir()
        self.barrier = asyncio.Barrier(expected)
        self.cancelled = 0

    @asynccontextmanager
    async def run(
        self, command: RunCommand, lower: Sequence[Path], output: Output, mounts: Sequence[Any] = ()
    ) -> AsyncIterator[Ran]:
        """Wait for the others; ``fail`` does not wait."""
        if command.argv[-1] == "fail":
            yield Ran(7, self.upper)
            return
        try:
            async with asyncio.timeout(10):
                await self.barrier.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        yield Ran(0, self.upper)


async def test_stages_run_at_once(build: Any, builder: Any, tmp_path: Path) -> None:
    builder.runner = Meeting(tmp_path, 2)
    text = """FROM scratch AS base
COPY a /a
FROM base AS one
RUN one
FROM base AS two
RUN two
FROM base
COPY --from=one /a /1
COPY --from=two /a /2
"""
    result = await build(text, {"a": "A"})
    assert set(await result.files()) == {"a", "1", "2"}
    numbers = [step for step, status, _ in result.steps if status == "running"]
    assert numbers == [f"{n}/9" for n in range(1, 10)]


async def test_the_first_failure_ends_the_others(build: Any, builder: Any, tmp_path: Path) -> None:
    builder.runner = meeting = Meeting(tmp_path, 2)
    text = "FROM scratch AS base\nCOPY a /a\nFROM base AS one\nRUN waits\nFROM base AS two\nRUN fail\nFROM base\n"
    text += "COPY --from=one /a /1\nCOPY --from=two /a /2"
    with pytest.raises(StepFailed, match=r"^Dockerfile:6: .* exit code 7"):
        await build(text, {"a": "A"})
    assert meeting.cancelled == 1
