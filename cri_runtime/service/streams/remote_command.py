"""Exec and attach: one process's streams carried over one connection, until one of the two ends.

``Channels`` is the connection's side (WebSocket or SPDY), ``Session`` the process's; this file joins them. Nothing is
buffered: a chunk is read from one side only when the last one is on its way out of the other.
"""

import asyncio
import json
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from cri_runtime.service.streams import status
from cri_runtime.service.streams.descriptors import read_some, write_all

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)

LINGER_S = 0.5
"""How long an exited command's output may stay silent before it is taken for ended: a background child can hold it
open for ever."""
RESIZE_BYTES = 1024
"""The longest unfinished resize message kept."""


class Session(Protocol):
    """One process's streams, as non-blocking descriptors that belong to the session. With a terminal ``stdin`` and
    ``stdout`` may be its one descriptor, and there is no ``stderr``."""

    stdin: int | None
    stdout: int | None
    stderr: int | None
    tty: bool

    def resize(self, width: int, height: int) -> None:
        """Set the terminal's size, in characters."""

    def close_stdin(self) -> None:
        """The client ended its input: ``stdin`` is None from now on. A terminal's input has no end: nothing happens."""

    async def wait(self) -> int:
        """The exit code, once the process has ended."""

    def close(self) -> None:
        """Let go: an exec's process is killed if it still runs, an attached container runs on."""


class Input(NamedTuple):
    """What the client sent on a channel; ``end``: it will send no more there."""

    channel: int
    data: bytes
    end: bool = False


class Channels(Protocol):
    """A connection that carries the channels of one exec or attach."""

    async def receive(self) -> Input | None:
        """The client's next input; None when the client is gone. Raises ConnectionError."""

    async def send(self, channel: int, data: bytes) -> None:
        """Send output, waiting while the client is slow. Raises ConnectionError."""

    async def finish(self, outcome: dict[str, object]) -> None:
        """Tell the outcome on the error channel, end all channels and close in good order."""


@dataclass
class Output:
    """One of the process's outputs on its way to the client."""

    fd: int
    channel: int
    moved: int = 0
    reading: bool = False  # waiting for the process, not for the client

    async def copy(self, channels: Channels) -> None:
        """Until the output's end."""
        while data := await self._read():
            await channels.send(self.channel, data)
            self.moved += len(data)

    async def _read(self) -> bytes:
        self.reading = True
        try:
            return await read_some(self.fd)
        finally:
            self.reading = False


async def serve_session(session: Session, channels: Channels) -> None:
    """Carry ``session`` until its process ends (and tell how) or the client goes. Closes the session.

    Raises ConnectionError when the client is gone.
    """
    try:
        code = await _first_end(session, channels)
    finally:
        session.close()
    if code is not None:
        await channels.finish(status.exited(code))


async def _first_end(session: Session, channels: Channels) -> int | None:
    """The exit code, or None when the client went first."""
    client = asyncio.create_task(_take_input(session, channels), name="stream-input")
    process = asyncio.create_task(_give_output(session, channels), name="stream-output")
    tasks = (client, process)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if process.done():
            return process.result()
        client.result()  # a lost connection is raised
        return None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _take_input(session: Session, channels: Channels) -> None:
    sizes = SizeReader()
    while (message := await channels.receive()) is not None:
        if message.channel == STDIN:
            await _feed(session, message)
        elif message.channel == RESIZE:
            for width, height in sizes.feed(message.data):
                session.resize(width, height)


async def _feed(session: Session, message: Input) -> None:
    if session.stdin is None:
        return
    try:
        await write_all(session.stdin, message.data)
    except OSError:  # the process closed its input, or ended: there is nobody to feed
        session.close_stdin()
    if message.end:
        session.close_stdin()


async def _give_output(session: Session, channels: Channels) -> int:
    pairs = ((session.stdout, STDOUT), (None if session.tty else session.stderr, STDERR))
    outputs = [Output(fd, channel) for fd, channel in pairs if fd is not None]
    copies = {asyncio.create_task(output.copy(channels), name=f"stream-{output.channel}") for output in outputs}
    try:
        code = await _wait_and_watch(session, copies)
        await _drain(outputs, copies)
        return code
    finally:
        for copy in copies:
            copy.cancel()
        await asyncio.gather(*copies, return_exceptions=True)


async def _wait_and_watch(session: Session, copies: set[asyncio.Task[None]]) -> int:
    """The exit code; a copy that fails meanwhile (the client is gone) fails this."""
    waiting = asyncio.create_task(session.wait(), name="stream-wait")
    pending = {waiting, *copies}
    try:
        while not waiting.done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        return waiting.result()
    finally:
        waiting.cancel()


async def _drain(outputs: list[Output], copies: set[asyncio.Task[None]]) -> None:
    """Wait for the outputs' ends, or until they have been silent for LINGER_S."""
    while copies:
        before = sum(output.moved for output in outputs)
        done, copies = await asyncio.wait(copies, timeout=LINGER_S)
        for task in done:
            task.result()
        silent = all(output.reading for output in outputs) and sum(output.moved for output in outputs) == before
        if not done and silent:
            return


class SizeReader:
    """Terminal sizes from the resize channel: JSON objects, one after another, cut anywhere."""

    def __init__(self) -> None:
        self._text = ""
        self._decoder = json.JSONDecoder()

    def feed(self, data: bytes) -> list[tuple[int, int]]:
        """The (width, height) pairs that ``data`` completes; what is no size is skipped."""
        self._text = (self._text + data.decode("utf-8", "replace")).lstrip()
        sizes = []
        while self._text:
            try:
                value, end = self._decoder.raw_decode(self._text)
            except ValueError:
                self._text = self._text[:RESIZE_BYTES]
                break
            self._text = self._text[end:].lstrip()
            if size := _size(value):
                sizes.append(size)
        return sizes


def _size(value: object) -> tuple[int, int] | None:
    if not isinstance(value, dict):
        return None
    width, height = value.get("Width"), value.get("Height")
    if not (isinstance(width, int) and isinstance(height, int)):
        return None
    return (width, height) if 0 < width < 65536 and 0 < height < 65536 else None
