"""Framing of log records. Pure: bytes in, records out.

Layout, little-endian, each record padded with zeros to a multiple of 8 bytes::

    | crc u32 | size u32 | batch u32 | kind u8 | ends u8 | 0 0 | payload[size] |

``crc`` is the CRC-32 of everything after it. ``batch`` numbers the synchronised writes of one segment from 1; ``ends``
is 1 in the last record of its batch. Batch n + 1 is written only after the disk has confirmed batch n, which tells a
crash from decay: a bad record with a later batch behind it was confirmed once, so it has decayed; without one it is
what an interrupted write left, and its batch, never confirmed to anybody, is dropped as a whole.
"""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from raftstore.raft.types import Entry, HardState

_HEAD = Struct("<IIIBBxx")
_HEAD_BODY = Struct("<IIBBxx")
_ENTRY = Struct("<QQ")
_STATE = Struct("<QQQ")
_SEGMENT = Struct("<IxxxxQQQ")
_ALIGN = 8
FORMAT_VERSION = 1


class Kind(IntEnum):
    """What a record holds. Numbers are on disk: never reuse one."""

    SEGMENT = 1
    HARD_STATE = 2
    ENTRY = 3


class Record(NamedTuple):
    """One decoded record and where it ends."""

    kind: int
    batch: int
    ends_batch: bool
    payload: memoryview
    end: int


class SegmentHead(NamedTuple):
    """The first payload of a segment: whose log it is, its place in it, and the hard state when it began."""

    cluster_id: int
    member_id: int
    sequence: int
    hard_state: HardState = HardState()


def encode_batch(batch: int, items: Sequence[tuple[Kind, bytes]]) -> bytes:
    """The bytes of one synchronised write."""
    parts: list[bytes] = []
    last = len(items) - 1
    for at, (kind, payload) in enumerate(items):
        body = _HEAD_BODY.pack(len(payload), batch, kind, at == last)
        crc = crc32(payload, crc32(body))
        parts += (crc.to_bytes(4, "little"), body, payload, bytes(-len(payload) % _ALIGN))
    return b"".join(parts)


def decode_record(data: memoryview, offset: int) -> Record | None:
    """The record at ``offset``, or None if there is no whole, sound one."""
    if offset + _HEAD.size > len(data):
        return None
    crc, size, batch, kind, ends = _HEAD.unpack_from(data, offset)
    start = offset + _HEAD.size
    if batch == 0 or start + size > len(data):
        return None
    if crc32(data[offset + 4 : start + size]) != crc:
        return None
    return Record(kind, batch, bool(ends), data[start : start + size], start + size + -size % _ALIGN)


class Scan(NamedTuple):
    """What a segment holds."""

    records: list[Record]
    """The records of all complete batches."""
    end: int
    """Where the last complete batch ends."""
    batch: int
    """Its number; 0 if there is none."""
    decayed: bool
    """Whether a batch that was confirmed is damaged."""


def scan_segment(data: memoryview) -> Scan:
    """Read a segment from its start to the first record that is not sound, and judge what lies behind."""
    records: list[Record] = []
    offset = end = batch = complete = 0
    while (record := decode_record(data, offset)) is not None:
        records.append(record)
        offset = record.end
        if record.ends_batch:
            end, batch, complete = offset, record.batch, len(records)
    later = max((record.batch for record in _salvage(data, offset)), default=0)
    # The damaged or missing record belongs to batch + 1; a batch after that one proves it was confirmed.
    return Scan(records[:complete], end, batch, later > batch + 1)


def _salvage(data: memoryview, offset: int) -> Iterator[Record]:
    """Sound records anywhere behind ``offset``."""
    while (offset := _next_nonzero(data, offset + _ALIGN)) < len(data):
        record = decode_record(data, offset)
        if record is not None:
            yield record


def _next_nonzero(data: memoryview, offset: int) -> int:
    """The first aligned position from ``offset`` on whose 8 bytes are not all zero."""
    while offset < len(data):
        block = bytes(data[offset : offset + 65536])
        zeros = len(block) - len(block.lstrip(b"\0"))
        if zeros < len(block):
            return offset + zeros - zeros % _ALIGN
        offset += len(block)
    return offset


# -- payloads ----------------------------------------------------------------------------------------------------


def entry_payload(entry: Entry) -> bytes:
    """Index, term, data."""
    return _ENTRY.pack(entry.index, entry.term) + entry.data


def parse_entry(payload: memoryview) -> Entry:
    """The inverse of ``entry_payload``."""
    index, term = _ENTRY.unpack_from(payload)
    return Entry(index, term, bytes(payload[_ENTRY.size :]))


def state_payload(state: HardState) -> bytes:
    """Term, vote, commit."""
    return _STATE.pack(*state)


def parse_state(payload: memoryview) -> HardState:
    """The inverse of ``state_payload``."""
    return HardState(*_STATE.unpack_from(payload))


def head_payload(head: SegmentHead) -> bytes:
    """Format version, cluster, member, sequence, hard state."""
    identity = _SEGMENT.pack(FORMAT_VERSION, head.cluster_id, head.member_id, head.sequence)
    return identity + state_payload(head.hard_state)


def parse_head(payload: memoryview) -> SegmentHead:
    """The inverse of ``head_payload``. Raises ValueError for another format version."""
    version, cluster_id, member_id, sequence = _SEGMENT.unpack_from(payload)
    if version != FORMAT_VERSION:
        raise ValueError(f"log format {version}, this program reads {FORMAT_VERSION}")
    return SegmentHead(cluster_id, member_id, sequence, parse_state(payload[_SEGMENT.size :]))
