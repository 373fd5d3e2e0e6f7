"""Reading container logs in CRI format: ``<RFC 3339 time> <stdout|stderr> <P|F> <content>\\n``.

``parse``, ``Assembler`` and ``tail_offset`` are pure. Following looks at the file ten times a second while somebody
reads (inotify instances are few per machine, and readers are fewer), and survives rotation: when the file under the
name is another one, what is left of the old one is read first.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from control.api import times

BLOCK = 64 << 10
FOLLOW_S = 0.1
"""Between two looks at a followed file, seconds."""


@dataclass(frozen=True)
class Entry:
    """One entry of a log file. ``partial``: the line goes on in the next entry of the stream."""

    stamp: str
    stream: str
    partial: bool
    content: bytes


@dataclass(frozen=True)
class Query:
    """What part of a log is wanted; see stream.proto LogRequest."""

    follow: bool = False
    timestamps: bool = False
    since_ns: int = 0
    tail_lines: int | None = None
    limit_bytes: int = 0


def parse(line: bytes) -> Entry | None:
    """One line without its newline; None if it is not in CRI format."""
    parts = line.split(b" ", 3)
    if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr"):
        return None
    content = parts[3] if len(parts) == 4 else b""
    tags = parts[2].split(b":")
    return Entry(parts[0].decode(errors="replace"), parts[1].decode(), tags[0] == b"P", content)


def stamp_ns(stamp: str) -> int:
    """Nanoseconds since the epoch of an entry's time; 0 if it is none."""
    try:
        seconds, nanos = times.parse_rfc3339(stamp)
    except times.TimeError:
        return 0
    return seconds * 1_000_000_000 + nanos


@dataclass
class Assembler:
    """Turns entries into the text that is sent: filters by time, joins partial entries, puts times before lines,
    limits bytes.
    """

    query: Query
    sent: int = 0
    done: bool = False
    _open: dict[str, bool] = field(default_factory=dict)

    def text(self, line: bytes) -> bytes:
        """The text for one log line (without newline)."""
        entry = parse(line)
        if entry is None or self.done:
            return b""
        if self.query.since_ns and stamp_ns(entry.stamp) < self.query.since_ns:
            return b""
        goes_on = self._open.get(entry.stream, False)
        self._open[entry.stream] = entry.partial
        head = f"{entry.stamp} ".encode() if self.query.timestamps and not goes_on else b""
        return self._limited(head + entry.content + (b"" if entry.partial else b"\n"))

    def _limited(self, text: bytes) -> bytes:
        if self.query.limit_bytes:
            text = text[: self.query.limit_bytes - self.sent]
            self.done = self.sent + len(text) >= self.query.limit_bytes
        self.sent += len(text)
        return text


def tail_offset(read: Callable[[int, int], bytes], size: int, lines: int) -> int:
    """Where the last ``lines`` complete lines of a file begin; read in blocks from its end by ``read(offset, length)``.

    A line that was written in parts counts once: only entries tagged F end a line.
    """
    if lines <= 0:
        return size
    ends: list[int] = []  # offsets just after the newline of an F entry, newest first
    position, tail = size, b""
    while position > 0:
        length = min(BLOCK, position)
        position -= length
        block = read(position, length) + tail
        pieces = block.split(b"\n")
        tail = pieces[0]
        offset = position + len(pieces[0]) + 1
        found: list[int] = []
        for piece in pieces[1:]:
            if piece and offset < size:
                entry = parse(piece)
                if entry is not None and not entry.partial:
                    found.append(offset + len(piece) + 1)
            offset += len(piece) + 1
        ends += reversed(found)
        if len(ends) > lines:
            return ends[lines]
    first = parse(tail)
    if first is not None and not first.partial:
        ends.append(len(tail) + 1)
    return ends[lines] if len(ends) > lines else 0


async def read_log(path: Path, query: Query, alive: Callable[[], bool]) -> AsyncGenerator[bytes, None]:
    """The text of a log, in chunks; with ``query.follow`` also what is written later, as long as ``alive()``.

    Raises FileNotFoundError.
    """
    assembler = Assembler(query)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        size = os.fstat(file.fileno()).st_size
        if query.tail_lines is not None:
            file.seek(
                tail_offset(lambda offset, length: os.pread(file.fileno(), length, offset), size, query.tail_lines)
            )
        rest = b""
        while True:
            # Both are asked before reading: what was written up to then is read before acting on the answer.
            ended, rotated = not alive(), _rotated(path, file.fileno())
            while block := await asyncio.to_thread(file.read, BLOCK):
                *lines, rest = (rest + block).split(b"\n")
                text = b"".join(assembler.text(line) for line in lines)
                if text:
                    yield text
                if assembler.done:
                    return
            if not query.follow or (ended and not rotated):
                return
            if rotated:
                file = stack.enter_context(path.open("rb"))
                rest = b""
            else:
                await asyncio.sleep(FOLLOW_S)


def _rotated(path: Path, fd: int) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)
