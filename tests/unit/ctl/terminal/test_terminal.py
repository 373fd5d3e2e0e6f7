"""The user's terminal, played by a pseudo-terminal."""

import asyncio
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctl.terminal import WindowSize, raw_terminal, read_input, window_size, window_sizes, write_all


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """(the keyboard and screen, the program's end) of one pseudo-terminal."""
    ends = pty.openpty()
    yield ends
    for fd in ends:
        os.close(fd)


def resize(fd: int, width: int, height: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def test_raw_mode_is_undone_even_after_a_failure(terminal: tuple[int, int]) -> None:
    _, program = terminal
    before = termios.tcgetattr(program)
    with pytest.raises(ZeroDivisionError), raw_terminal(program):
        assert not termios.tcgetattr(program)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
        _ = 1 / 0
    assert termios.tcgetattr(program) == before


def test_raw_mode_of_a_pipe_does_nothing() -> None:
    read_end, write_end = os.pipe()
    with raw_terminal(read_end):
        os.write(write_end, b"x")
    assert os.read(read_end, 1) == b"x"
    os.close(read_end)
    os.close(write_end)


async def test_sizes_start_with_the_present_one_and_follow_changes(terminal: tuple[int, int]) -> None:
    keyboard, program = terminal
    resize(keyboard, 80, 24)
    sizes = window_sizes(program)
    assert await anext(sizes) == WindowSize(80, 24)
    resize(keyboard, 132, 43)
    os.kill(os.getpid(), signal.SIGWINCH)
    assert await anext(sizes) == WindowSize(132, 43)
    await sizes.aclose()  # type: ignore[attr-defined]


async def test_a_pipe_has_no_sizes() -> None:
    read_end, write_end = os.pipe()
    assert window_size(read_end) is None
    assert [size async for size in window_sizes(read_end)] == []
    os.close(read_end)
    os.close(write_end)


async def test_input_of_a_pipe_is_read_to_its_end() -> None:
    read_end, write_end = os.pipe()
    chunks = read_input(read_end)
    os.write(write_end, b"hello")
    assert await anext(chunks) == b"hello"
    pending = asyncio.ensure_future(anext(chunks, None))
    os.close(write_end)
    assert await pending is None
    os.close(read_end)


async def test_input_of_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"x" * 100_000)
    with path.open("rb") as file:
        assert b"".join([chunk async for chunk in read_input(file.fileno())]) == path.read_bytes()


async def test_writing_waits_for_a_slow_reader() -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    writing = asyncio.create_task(asyncio.to_thread(write_all, write_end, b"x" * 300_000))
    total = 0
    while total < 300_000:
        total += len(await asyncio.to_thread(os.read, read_end, 65536))
    await writing
    os.close(read_end)
    os.close(write_end)
