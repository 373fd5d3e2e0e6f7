"""The port through which a build runs commands: who builds does not know how processes are isolated."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cri_runtime.build.mounts import Bound
from cri_runtime.build.state import RunCommand

Output = Callable[[str], None]
"""Called with each line that the command writes."""


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    exit_code: int
    upper: Path
    """What it changed: an overlay's upper directory; gone after the block."""


class RunError(Exception):
    """A command could not be started; the text says why."""


class Runner(Protocol):
    """Runs commands in containers."""

    def run(
        self, command: RunCommand, lower: Sequence[Path], output: Output, mounts: Sequence[Bound] = ()
    ) -> AbstractAsyncContextManager[Ran]:
        """Run to the end over ``lower`` (topmost first). Cancelling kills it. Raises RunError, OSError."""
