"""CRI's log files, line by line (``<time> <stdout|stderr> <tags> <content>``). Pure."""

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from ctl.errors import CtlError

UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


@dataclass(frozen=True)
class Entry:
    """One line of the file. A partial entry's text goes on in its stream's next entry."""

    stamp: str
    stream: str
    content: bytes  # with its newline, unless partial

    @property
    def seconds(self) -> float:
        """Since the epoch; the fraction to microseconds."""
        head, _, rest = self.stamp.partition(".")
        digits = re.match(r"\d*", rest)
        fraction = digits[0] if digits else ""
        zone = rest[len(fraction) :] if rest else head[19:]
        moment = datetime.fromisoformat(head[:19] + (zone if zone != "Z" else "+00:00"))
        return moment.timestamp() + float(f"0.{fraction or 0}")


def parse_line(line: bytes) -> Entry:
    """Decode one line. Raises CtlError for one that is not of the format."""
    parts = line.rstrip(b"\n").split(b" ", 3)
    if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr"):
        raise CtlError(f"not a CRI log line: {line[:80]!r}")
    stamp, stream, tags, *content = parts
    full = tags.split(b":")[0] == b"F"
    return Entry(stamp.decode(), stream.decode(), (content[0] if content else b"") + (b"\n" if full else b""))


def tail_start(data: bytes, lines: int) -> int:
    """Where the last ``lines`` complete log lines of ``data`` begin; partial entries belong to the line they start."""
    ends = [match.end() for match in re.finditer(rb"(?m)^\S+ \S+ F[^\n]*\n", data)]
    if lines >= len(ends):
        return 0
    return len(data) if lines == 0 else ends[-lines - 1]


def parse_since(text: str) -> float:
    """``--since``: a time, or how long ago (``42m``, ``1h30m``), as seconds since the epoch. Raises CtlError."""
    if not text:
        return 0.0
    parts = re.findall(r"(\d+(?:\.\d+)?)(h|ms|us|µs|ns|m|s)", text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return time.time() - sum(float(number) * UNITS[unit] for number, unit in parts)
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise CtlError(f'--since "{text}" is neither a time (2026-01-31T12:00:00Z) nor a duration (42m)') from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@dataclass
class Printer:
    """Turns entries into what the user sees: since, one stream, timestamps, at most so many bytes."""

    since: float = 0.0
    stream: str = ""
    timestamps: bool = False
    room: int = -1  # bytes left; -1 is no limit
    _fresh: bool = True  # the next entry begins a line

    def render(self, entries: Iterable[Entry]) -> Iterator[tuple[str, bytes]]:
        """(stream, bytes) to write, in order."""
        return ((entry.stream, text) for entry in entries if (text := self._text(entry)))

    def _text(self, entry: Entry) -> bytes:
        if (self.stream and entry.stream != self.stream) or (self.since and entry.seconds < self.since):
            return b""
        prefix = f"{entry.stamp} ".encode() if self.timestamps and self._fresh else b""
        self._fresh = entry.content.endswith(b"\n")
        text = prefix + entry.content
        if self.room >= 0:
            text = text[: self.room]
            self.room -= len(text)
        return text
