"""Runs commands as a user would type them, shows them and what they print, and knows how a step fails."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import click

from ctl.demo.traces import Marks
from ctl.lab.layout import Layout
from ctl.lab.settings import Settings, read_settings

T = TypeVar("T")

COMMAND_DEADLINE_S = 180.0
SHOWN_LINES = 30
"""Lines of a long output that are shown; the rest is counted."""


class StepFailed(Exception):
    """A step did not do what it should; the text says what was seen."""


def expect(holds: object, what: str) -> None:
    """Raises StepFailed(what) unless ``holds``."""
    if not holds:
        raise StepFailed(what)


@dataclass
class Stage:
    """One demo: where its cluster lives, and what has been shown."""

    state_dir: Path
    port_offset: int
    strict: bool
    notes: dict[str, str] = field(default_factory=dict)
    marks: Marks = field(default_factory=Marks)

    @property
    def layout(self) -> Layout:
        """Paths of the demo's cluster."""
        return Layout(self.state_dir)

    @property
    def settings(self) -> Settings:
        """What the demo's cluster chose."""
        return read_settings(self.layout)

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment of every command."""
        return {**os.environ, "KNARR_STATE_DIR": str(self.state_dir), "PYTHONUNBUFFERED": "1", "COLUMNS": "160"}

    def learn_marks(self) -> None:
        """Remember what is this cluster's, before it goes."""
        self.marks.of(self.layout, self.settings)
        self.marks.learn(self.layout.runtime_endpoint)

    def argv(self, *words: str) -> Sequence[str]:
        """What is really run for ``ctl words...``."""
        return [sys.executable, "-m", "ctl", *words]

    def ctl(self, *words: str, shown: bool = True, code: int = 0, lines: int = SHOWN_LINES) -> str:
        """Run ``ctl words...``; show it and what it prints. Returns its standard output.

        Raises StepFailed when it ends with another exit code than ``code``.
        """
        if shown:
            self.prompt("ctl", *words)
        result = subprocess.run(
            self.argv(*words),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_DEADLINE_S,
        )
        if shown:
            self.show(result.stdout + result.stderr, lines)
        expect(
            result.returncode == code,
            f"'ctl {shlex.join(words)}' ended with exit code {result.returncode}: {result.stderr.strip()}",
        )
        return result.stdout

    def prompt(self, *words: str) -> None:
        """Show a command as it is typed."""
        click.echo(f"$ {shlex.join(words)}")

    def show(self, text: str, lines: int = SHOWN_LINES) -> None:
        """Show output; of a long one the beginning."""
        everything = text.splitlines()
        for line in everything[:lines]:
            click.echo(line)
        if len(everything) > lines:
            click.echo(f"... ({len(everything) - lines} more lines)")

    def say(self, text: str) -> None:
        """A sentence between commands."""
        click.echo(f"# {text}")

    def until(self, what: str, look: Callable[[], T | None], deadline_s: float = 60.0) -> T:
        """Look again and again until there is something to see. Raises StepFailed after the deadline.

        The demo looks from outside, through the command line, where there is nothing to be woken by.
        """
        ends = time.monotonic() + deadline_s
        while True:
            if (seen := look()) is not None:
                return seen
            if time.monotonic() > ends:
                raise StepFailed(f"{what}: not within {deadline_s:.0f} s")
            time.sleep(0.2)
