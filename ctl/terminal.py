"""The user's terminal while a command runs somewhere else: raw mode, window sizes and input.

The three parts compose into an interactive exec::

    with raw_terminal(0):
        async for chunk in read_input(0):
            await stream.send(chunk)          # and, in a sibling task:
        async for size in window_sizes(1):
            await stream.resize(size.width, size.height)

Everything here also works when the descriptor is no terminal (a pipe, a file, ``/dev/null``): raw mode does nothing,
there are no sizes, and input is read to its end.
"""

import asyncio
import errno
import os
import select
import signal
import termios
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import NamedTuple

CHUNK_BYTES = 32 << 10
"""How much input is read at once: small enough that a key press is never held up behind a paste."""


class WindowSize(NamedTuple):
    """A terminal's size in character cells."""

    width: int
    height: int


@contextmanager
def raw_terminal(fd: int = 0) -> Iterator[None]:
    """Hand every key press through untouched for the length of the block, then put the terminal back as it was.

    Keys that the terminal driver would act on (Ctrl-C, Ctrl-Z, Ctrl-S) become plain input, for the other side's
    terminal to act on. Does nothing when ``fd`` is no terminal.
    """
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        # TCSADRAIN, not TCSAFLUSH: what the user typed ahead belongs to their shell.
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def window_size(fd: int = 1) -> WindowSize | None:
    """The terminal's size now, or None when ``fd`` is no terminal."""
    try:
        return WindowSize(*os.get_terminal_size(fd))
    except OSError:
        return None


async def window_sizes(fd: int = 1) -> AsyncIterator[WindowSize]:
    """The terminal's size now and then after each change, until cancelled; ends at once when ``fd`` is no terminal.

    Sizes that pass faster than they are taken are skipped: only the newest matters. Takes the process's SIGWINCH
    handler, so one iteration at a time, in the main thread.
    """
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, changed.set)
    try:
        while (size := window_size(fd)) is not None:
            yield size
            await changed.wait()
            changed.clear()
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


async def read_input(fd: int = 0) -> AsyncIterator[bytes]:
    """Chunks of input until its end. Reads only when the last chunk has been taken, so a slow peer holds input back.

    The descriptor is not made non-blocking: it is shared with the user's shell. Files, which cannot be waited for,
    are read as they are.
    """
    while True:
        await _readable(fd)
        try:
            chunk = os.read(fd, CHUNK_BYTES)
        except OSError as err:
            if err.errno != errno.EIO:  # a terminal that went away: the same as its end
                raise
            return
        if not chunk:
            return
        yield chunk


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    try:
        loop.add_reader(fd, _settle, ready)
    except PermissionError:  # epoll refuses what never blocks: regular files, /dev/null
        return
    try:
        await ready
    finally:
        loop.remove_reader(fd)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``, waiting as long as the reader takes. Raises BrokenPipeError when the reader is gone."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # somebody else made our stdout non-blocking (it is shared): wait for room
            _await_writable(fd)


def _await_writable(fd: int) -> None:
    select.select([], [fd], [])
