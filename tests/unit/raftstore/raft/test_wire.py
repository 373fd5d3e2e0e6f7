"""Every message survives the wire."""

import pytest

from protos.knarr import raft_pb2 as pb
from raftstore.raft import message as m
from raftstore.raft import wire
from raftstore.raft.types import ConfState, Entry, EntryKind, Snapshot

CONF = ConfState(frozenset({1, 2**64 - 1}), frozenset({4}), frozenset({1, 3}), frozenset({3}), True)

MESSAGES = [
    m.MsgVote(1, 2, 3, 4, 5, True, True),
    m.MsgVoteResp(1, 2, 3, True, True, 7, 8),
    m.MsgApp(1, 2, 3, 4, 5, [Entry(5, 5, b"a"), Entry(6, 7, b"b", EntryKind.CONF_CHANGE)], 9),
    m.MsgApp(1, 2, 3, 0, 0, [], 0),
    m.MsgAppResp(1, 2, 3, 4, True, 5, 6),
    m.MsgHeartbeat(1, 2, 3, 4, 5),
    m.MsgHeartbeatResp(1, 2, 3, 4),
    m.MsgSnap(1, 2, 3, Snapshot(4, 5, CONF)),
    m.MsgTimeoutNow(1, 2, 3),
    m.MsgProp(1, 2, 0, [(b"a", EntryKind.COMMAND), (b"b", EntryKind.CONF_CHANGE)]),
    m.MsgReadIndex(1, 2, 0, 2**64 - 1),
    m.MsgReadIndexResp(1, 2, 3, 4, 5),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_message_survives_the_wire(message: m.Message) -> None:
    data = wire.encode(message).SerializeToString()
    assert wire.decode(pb.Message.FromString(data)) == message


def test_every_message_is_in_the_list() -> None:
    assert {type(message) for message in MESSAGES} == set(m.Message.__subclasses__())


def test_message_without_body_is_refused() -> None:
    with pytest.raises(ValueError, match="without a body"):
        wire.decode(pb.Message(to=1))
