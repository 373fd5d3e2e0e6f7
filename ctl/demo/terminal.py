"""A person at a terminal: types into a program that runs on a pseudo-terminal, and reads what it shows."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from ctl.demo.stage import StepFailed

PATIENCE_S = 20.0


class Person:
    """Use it with ``with``: the program starts at the beginning and is killed at the end if it still runs."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], width: int = 80, height: int = 24) -> None:
        self._screen, self._slave = pty.openpty()
        self.resize(width, height)
        self._argv, self._env = argv, env
        self.transcript = ""
        self._read = 0

    def __enter__(self) -> Self:
        self._program = subprocess.Popen(
            self._argv,
            env={**self._env, "TERM": "dumb"},
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._program.kill()
        self._program.wait()
        os.close(self._screen)
        os.close(self._slave)

    def resize(self, width: int, height: int) -> None:
        """Drag the window to another size."""
        fcntl.ioctl(self._screen, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        if hasattr(self, "_program"):
            self._program.send_signal(signal.SIGWINCH)

    def type(self, text: str) -> None:
        """Type ``text``."""
        os.write(self._screen, text.encode())

    def read_until(self, pattern: str) -> re.Match[str]:
        """Wait for ``pattern`` to appear after what was read before. Raises StepFailed when it does not in time."""
        ends = time.monotonic() + PATIENCE_S
        while (found := re.search(pattern, self.transcript[self._read :])) is None:
            ready, _, _ = select.select([self._screen], [], [], max(0.0, ends - time.monotonic()))
            if not ready:
                raise StepFailed(f"the terminal did not show {pattern!r}; it shows: {self.transcript!r}")
            self.transcript += self._read_screen().replace("\r", "")
        self._read += found.end()
        return found

    def _read_screen(self) -> str:
        try:
            return os.read(self._screen, 4096).decode(errors="replace")
        except OSError as err:  # EIO: the program has closed its side
            raise StepFailed(f"the terminal was closed; it showed: {self.transcript!r}") from err

    def exit_code(self) -> int:
        """Wait for the program to end; the transcript is then complete."""
        try:
            code = self._program.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise StepFailed(f"the program did not end; the terminal shows: {self.transcript!r}") from None
        while select.select([self._screen], [], [], 0)[0]:
            self.transcript += self._read_screen().replace("\r", "")
        return code
