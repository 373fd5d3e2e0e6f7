"""Progress for people: lines that change in place on a terminal, one line per change of state elsewhere."""

import sys
from typing import Any, TextIO

from ctl.cri.show import human_size

_BAR_CHARACTERS = 30
_WORDS = {
    "downloading": "Downloading",
    "pushing": "Pushing",
    "exists": "Already exists",
    "done": "Complete",
    "mounted": "Mounted from another repository",
    "unpacking": "Unpacking",
}


class Transfer:
    """Shows a pull or push, a line per layer."""

    def __init__(self, out: TextIO | None = None, quiet: bool = False) -> None:
        self._out = out or sys.stdout
        self._quiet = quiet
        self._live = self._out.isatty()
        self._lines: dict[str, str] = {}

    def show(self, progress: Any) -> None:
        """Take one message of the stream."""
        if self._quiet or not progress.id:
            return
        name = progress.id.partition(":")[2][:12]
        if self._live:
            self._replace(name, f"{name}: {_state(progress)}")
        elif self._lines.get(name) != progress.status:
            self._lines[name] = progress.status
            print(f"{name}: {_WORDS.get(progress.status, progress.status)}", file=self._out, flush=True)

    def _replace(self, name: str, line: str) -> None:
        """Rewrite the layer's line where it stands."""
        if name not in self._lines:
            self._lines[name] = line
            self._out.write(line + "\n")
        else:
            up = len(self._lines) - list(self._lines).index(name)
            self._out.write(f"\x1b[{up}A\r\x1b[K{line}\x1b[{up}B\r")
        self._out.flush()


def _state(progress: Any) -> str:
    word = _WORDS.get(progress.status, progress.status)
    if progress.status not in ("downloading", "pushing") or not progress.total_bytes:
        return word
    done = min(progress.current_bytes / progress.total_bytes, 1)
    bar = ("=" * int(done * _BAR_CHARACTERS) + ">").ljust(_BAR_CHARACTERS + 1)[: _BAR_CHARACTERS + 1]
    return f"{word} [{bar}] {human_size(progress.current_bytes)}/{human_size(progress.total_bytes)}"


class Steps:
    """Shows a build, a line per step."""

    def __init__(self, out: TextIO | None = None, quiet: bool = False, explain: bool = False) -> None:
        self._out = out or sys.stdout
        self._quiet = quiet
        self._explain = explain
        self._latest = ""

    def show(self, progress: Any) -> None:
        """Take one message of the stream."""
        if self._quiet:
            return
        match progress.status:
            case "running":
                self._latest = progress.id
                self._print(f"Step {progress.id} : {progress.text}")
            case "cached":
                self._say(progress, " ---> Using cache")
            case "missed":
                if self._explain:
                    self._say(progress, f" ---> Done anew: {progress.text}")
            case "warning":
                self._print(f"warning: {progress.text}")
            case _ if progress.text:
                self._say(progress, progress.text)

    def _say(self, progress: Any, line: str) -> None:
        """A line of a step; with its number when stages run at once and another step began since."""
        mark = f"[{progress.id}] " if progress.id and progress.id != self._latest else ""
        self._print(mark + line)

    def _print(self, line: str) -> None:
        print(line, file=self._out, flush=True)
