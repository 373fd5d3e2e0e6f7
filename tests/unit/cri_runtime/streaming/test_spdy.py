"""SPDY/3.1 framing: one end's codec against the other's, and against bytes that are none."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri_runtime.service.streams.spdy import (
    Data,
    GoneAway,
    Opened,
    Pinged,
    Replied,
    Reset,
    Spdy,
    SpdyError,
)
from cri_runtime.service.streams.spdy_dictionary import DICTIONARY


def test_the_dictionary_is_spdy_3s() -> None:
    """The draft's, by length and the checksum that every header stream carries."""
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


def test_every_frame_arrives_as_its_event() -> None:
    here, there = Spdy(), Spdy()
    frames = (
        here.open(1, {"streamtype": "stdin"})
        + here.open(3, {"streamtype": "error", "port": "80"}, fin=True)
        + here.reply(2)
        + here.data(1, b"hello")
        + here.data(1, b"", fin=True)
        + here.reset(3)
        + here.ping(7)
        + here.go_away()
    )
    assert list(there.feed(frames)) == [
        Opened(1, {"streamtype": "stdin"}),
        Opened(3, {"streamtype": "error", "port": "80"}, fin=True),
        Replied(2, {}),
        Data(1, b"hello"),
        Data(1, b"", fin=True),
        Reset(3, 5),
        Pinged(7),
        GoneAway(),
    ]


@given(cuts=st.lists(st.integers(1, 40), min_size=1), values=st.lists(st.text(max_size=20), max_size=5))
def test_frames_may_be_cut_anywhere(cuts: list[int], values: list[str]) -> None:
    here, there = Spdy(), Spdy()
    headers = {f"name{i}": value.replace("\0", "") for i, value in enumerate(values)}
    frames = here.open(1, headers) + here.open(3, headers) + here.data(1, b"x" * 100)
    events = []
    while frames:
        size = cuts.pop() if cuts else len(frames)
        events += list(there.feed(frames[:size]))
        frames = frames[size:]
    assert events == [Opened(1, headers), Opened(3, headers), Data(1, b"x" * 100)]


def test_a_data_frame_has_the_layout_of_the_draft() -> None:
    assert Spdy.data(5, b"abc", fin=True) == b"\x00\x00\x00\x05\x01\x00\x00\x03abc"


@pytest.mark.parametrize(
    "junk",
    [
        b"\x80\x02\x00\x01\x00\x00\x00\x00",  # version 2
        b"\x80\x03\x00\x03\x00\x00\x00\x01\x00",  # RST_STREAM of one byte
        b"\x80\x03\x00\x01\x00\x00\x00\x0e" + bytes(10) + b"junk",  # headers that are no zlib stream
        b"\x00\x00\x00\x01\x00\xff\xff\xff",  # a data frame of 16 MiB
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_spdy_is_refused(junk: bytes) -> None:
    with pytest.raises(SpdyError):
        list(Spdy().feed(junk))


def test_a_header_block_that_swells_is_refused() -> None:
    here, there = Spdy(), Spdy()
    with pytest.raises(SpdyError, match="too long"):
        list(there.feed(here.open(1, {"x": "y" * 1_000_000})))
