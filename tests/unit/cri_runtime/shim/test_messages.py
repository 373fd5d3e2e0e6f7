"""The shim's protocol: framing, descriptors, the closed set."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cri_runtime.shim import messages


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_messages_arrive_however_they_are_cut(pair: tuple[socket.socket, socket.socket]) -> None:
    data = b"".join(messages.encode({"op": "kill", "seq": n, "container": "c"}) for n in range(3))
    reader = messages.Reader(pair[1])
    seen = []
    for at in range(len(data)):
        pair[0].send(data[at : at + 1])
        seen += reader.receive()
    assert [message["seq"] for message, fds in seen] == [0, 1, 2] and not any(fds for _, fds in seen)


def test_descriptors_go_with_their_message(pair: tuple[socket.socket, socket.socket]) -> None:
    with Path("/dev/zero").open("rb") as zero, Path("/dev/null").open("rb") as null:
        messages.send(pair[0], {"seq": 1, "ok": {}}, (zero.fileno(), null.fileno()))
        messages.send(pair[0], {"seq": 2, "ok": {}})
        messages.send(pair[0], {"seq": 3, "ok": {}}, (null.fileno(),))
    reader = messages.Reader(pair[1])
    seen: list = []
    while len(seen) < 3:
        seen += reader.receive()
    assert [(message["seq"], len(fds)) for message, fds in seen] == [(1, 2), (2, 0), (3, 1)]
    assert os.fstat(seen[0][1][0]).st_rdev == os.makedev(1, 5)
    for _, fds in seen:
        for fd in fds:
            assert not os.get_inheritable(fd)
            os.close(fd)


@pytest.mark.parametrize("message", [{"op": "format-disk", "seq": 1}, {"op": "kill", "seq": 1}, {"event": "?"}, {}])
def test_what_is_not_in_the_set_is_refused(pair: tuple[socket.socket, socket.socket], message: dict) -> None:
    pair[0].send(messages.encode(message))
    with pytest.raises(messages.ProtocolError):
        messages.Reader(pair[1]).receive()


def test_the_end_is_told(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].close()
    with pytest.raises(EOFError):
        messages.Reader(pair[1]).receive()


def test_a_monstrous_length_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].send(messages.HEADER.pack(1 << 30))
    with pytest.raises(messages.ProtocolError):
        messages.Reader(pair[1]).receive()
