"""The core's messages as ``protos/knarr/raft.proto``. For the shell: the core does not import it."""

from collections.abc import Callable
from typing import Any

from protos.knarr import raft_pb2 as pb
from raftstore.raft.message import (
    Message,
    MsgApp,
    MsgAppResp,
    MsgHeartbeat,
    MsgHeartbeatResp,
    MsgProp,
    MsgReadIndex,
    MsgReadIndexResp,
    MsgSnap,
    MsgTimeoutNow,
    MsgVote,
    MsgVoteResp,
)
from raftstore.raft.types import ConfState, Entry, EntryKind, Snapshot


def encode(m: Message) -> pb.Message:
    """The message for the wire."""
    name, body = _ENCODERS[type(m)]
    return pb.Message(to=m.to, sender=m.sender, term=m.term, **{name: body(m)})


def decode(wire: pb.Message) -> Message:
    """The message for the core. Raises ValueError if it has no body, or none that this version knows."""
    name = wire.WhichOneof("body")
    if name is None:
        raise ValueError("a message without a body, or with an unknown one")
    cls, arguments = _DECODERS[name]
    return cls(wire.to, wire.sender, wire.term, *arguments(getattr(wire, name)))


def encode_conf_state(conf: ConfState) -> pb.ConfState:
    """The membership for the wire, and for the machine's records."""
    return pb.ConfState(
        voters=sorted(conf.voters),
        learners=sorted(conf.learners),
        outgoing=sorted(conf.outgoing),
        learners_next=sorted(conf.learners_next),
        auto_leave=conf.auto_leave,
    )


def decode_conf_state(wire: pb.ConfState) -> ConfState:
    """The inverse of ``encode_conf_state``."""
    return ConfState(
        frozenset(wire.voters),
        frozenset(wire.learners),
        frozenset(wire.outgoing),
        frozenset(wire.learners_next),
        wire.auto_leave,
    )


def _encode_append(m: MsgApp) -> pb.Append:
    entries = [pb.Entry(term=entry.term, data=entry.data, kind=entry.kind) for entry in m.entries]  # type: ignore[arg-type]
    return pb.Append(prev_index=m.prev_index, prev_term=m.prev_term, entries=entries, commit=m.commit)


def _decode_append(wire: pb.Append) -> tuple[Any, ...]:
    numbered = enumerate(wire.entries, wire.prev_index + 1)
    entries = [Entry(index, entry.term, entry.data, EntryKind(entry.kind)) for index, entry in numbered]
    return wire.prev_index, wire.prev_term, entries, wire.commit


def _encode_snapshot(m: MsgSnap) -> pb.Snapshot:
    snapshot = m.snapshot
    return pb.Snapshot(index=snapshot.index, term=snapshot.term, conf_state=encode_conf_state(snapshot.conf_state))


def _decode_snapshot(wire: pb.Snapshot) -> tuple[Any, ...]:
    return (Snapshot(wire.index, wire.term, decode_conf_state(wire.conf_state)),)


def _encode_proposals(m: MsgProp) -> pb.Proposals:
    return pb.Proposals(entries=[pb.Entry(data=data, kind=kind) for data, kind in m.proposals])  # type: ignore[arg-type]


def _decode_proposals(wire: pb.Proposals) -> tuple[Any, ...]:
    return ([(entry.data, EntryKind(entry.kind)) for entry in wire.entries],)


def _plain(cls: Any, *fields: str) -> tuple[Callable[[Any], Any], Callable[[Any], tuple[Any, ...]]]:
    """For a message whose fields have the same names here and there, in the order of its constructor."""
    return (
        lambda m: cls(**{name: getattr(m, name) for name in fields}),
        lambda wire: tuple([getattr(wire, name) for name in fields]),
    )


_TABLE: list[tuple[type[Any], str, tuple[Callable[[Any], Any], Callable[[Any], tuple[Any, ...]]]]] = [
    (MsgVote, "vote", _plain(pb.Vote, "last_index", "last_term", "pre", "transfer")),
    (MsgVoteResp, "vote_response", _plain(pb.VoteResponse, "granted", "pre", "commit", "commit_term")),
    (MsgApp, "append", (_encode_append, _decode_append)),
    (
        MsgAppResp,
        "append_response",
        _plain(pb.AppendResponse, "index", "rejected", "hint_index", "hint_term"),
    ),
    (MsgHeartbeat, "heartbeat", _plain(pb.Heartbeat, "commit", "round")),
    (MsgHeartbeatResp, "heartbeat_response", _plain(pb.HeartbeatResponse, "round")),
    (MsgSnap, "snapshot", (_encode_snapshot, _decode_snapshot)),
    (MsgTimeoutNow, "timeout_now", _plain(pb.TimeoutNow)),
    (MsgProp, "proposals", (_encode_proposals, _decode_proposals)),
    (MsgReadIndex, "read_index", _plain(pb.ReadIndex, "context")),
    (MsgReadIndexResp, "read_index_response", _plain(pb.ReadIndexResponse, "context", "index")),
]

_ENCODERS = {cls: (name, codec[0]) for cls, name, codec in _TABLE}
_DECODERS = {name: (cls, codec[1]) for cls, name, codec in _TABLE}
