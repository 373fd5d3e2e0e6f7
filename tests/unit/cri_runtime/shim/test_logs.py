"""CRI's log format, held against a reader that follows the format's rules."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cri_runtime.shim.logs import CONTENT_MAX, Framer, LogFile, timestamp

STAMP = b"2026-01-02T03:04:05.000000006Z"


def read_back(log: bytes) -> bytes:
    """What a reader makes of a log: P entries go on, F entries end a line."""
    text = b""
    for line in log.split(b"\n")[:-1]:
        stamp, stream, tag, content = line.split(b" ", 3)
        assert stamp == STAMP and stream == b"stdout" and tag in (b"P", b"F")
        assert len(content) <= CONTENT_MAX
        text += content + (b"\n" if tag == b"F" else b"")
    return text


def test_timestamps_have_nine_decimals() -> None:
    assert timestamp(1767323045000000006) == STAMP


def test_lines_and_their_rest() -> None:
    framer = Framer("stderr")
    assert framer.feed(b"one\ntw", STAMP) == STAMP + b" stderr F one\n"
    assert framer.feed(b"o\n\n", STAMP) == STAMP + b" stderr F two\n" + STAMP + b" stderr F \n"
    assert framer.feed(b"no newline", STAMP) == b""
    assert framer.finish(STAMP) == STAMP + b" stderr P no newline\n"
    assert framer.finish(STAMP) == b""


def test_a_carriage_return_before_the_newline_goes() -> None:
    assert Framer("stdout").feed(b"dos\r\n", STAMP) == STAMP + b" stdout F dos\n"


@given(st.lists(st.binary(max_size=3 * CONTENT_MAX).map(lambda b: b.replace(b"\r", b"")), max_size=6))
def test_whatever_comes_in_is_read_back(chunks: list[bytes]) -> None:
    framer = Framer("stdout")
    log = b"".join(framer.feed(chunk, STAMP) for chunk in chunks) + framer.finish(STAMP)
    assert read_back(log) == b"".join(chunks)


def test_a_log_file_goes_on_elsewhere_after_reopen(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = LogFile(str(path))
    log.append(b"1\n")
    path.rename(tmp_path / "old")
    log.append(b"2\n")
    log.reopen()
    log.append(b"3\n")
    log.close()
    assert ((tmp_path / "old").read_bytes(), path.read_bytes()) == (b"1\n2\n", b"3\n")


def test_what_the_disk_refuses_is_counted(tmp_path: Path) -> None:
    log = LogFile("/dev/full")
    log.append(b"lost\n")
    assert log.dropped_bytes == 5
    log.close()
