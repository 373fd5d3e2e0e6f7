"""The segmented log: append a batch with one fdatasync, read all back at start, drop what is no longer needed.

A segment is a file ``<sequence>-<first index>.wal``, made under a temporary name, preallocated and synchronised before
it gets that name, so that a segment that exists is a sound one. All methods block; one thread owns the log.
"""

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from raftstore.errors import DiskFull, StorageError
from raftstore.limits import WAL_SEGMENT_BYTES
from raftstore.metrics import Histogram
from raftstore.raft.types import Entry, HardState, Index
from raftstore.wal.fs import FS, File
from raftstore.wal.record import (
    Kind,
    Record,
    Scan,
    SegmentHead,
    encode_batch,
    entry_payload,
    head_payload,
    parse_entry,
    parse_head,
    parse_state,
    scan_segment,
    state_payload,
)

_SUFFIX = ".wal"
_TEMPORARY = ".tmp"
_NOTHING = HardState()


class Identity(NamedTuple):
    """Whose log it is."""

    cluster_id: int
    member_id: int


class Recovered(NamedTuple):
    """What the log held at start."""

    hard_state: HardState
    entries: list[Entry]
    """Contiguous; a later entry of the same index has replaced the earlier and all after it."""


@dataclass(frozen=True)
class _Segment:
    path: Path
    sequence: int
    first_index: Index
    """No entry below this index is in it, as of its beginning."""


class Wal:
    """An open log."""

    def __init__(
        self,
        fs: FS,
        directory: Path,
        identity: Identity,
        segment_bytes: int = WAL_SEGMENT_BYTES,
        first_index: Index = 1,
        hard_state: HardState = _NOTHING,
    ) -> None:
        """Open the log in ``directory``. What it held is in ``recovered``.

        In an empty directory one is begun for ``identity``, whose first entry will be ``first_index``, behind a
        snapshot, and which starts from ``hard_state``.

        Raises StorageError if it has decayed, mixes members, or the disk fails.
        """
        self._fs = fs
        self._directory = directory
        self.identity = identity
        self._segment_bytes = segment_bytes
        self._first_index = first_index
        self._state = hard_state
        self.last_index: Index = first_index - 1
        self.sync_durations = Histogram()
        self._segments: list[_Segment] = []
        self._file: File | None = None
        self._offset = 0
        self._batch = 0
        self.recovered = self._recover()

    # -- writing -------------------------------------------------------------------------------------------------

    def append(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Write one batch; durable on return.

        Raises DiskFull: the batch may be written again, at the same place, once there is room. After any other
        StorageError the log must not be used again.
        """
        items = [(Kind.ENTRY, entry_payload(entry)) for entry in entries]
        if hard_state is not None:
            self._state = hard_state
            items.append((Kind.HARD_STATE, state_payload(hard_state)))
        if entries:
            self.last_index = entries[-1].index
        try:
            self._write(items)
        except OSError as err:
            kind = DiskFull if err.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
            raise kind(f"cannot write the log in {self._directory}: {err.strerror or err}") from err

    def trim(self, index: Index) -> None:
        """Remove segments that hold only entries up to ``index``; the current one stays. Raises StorageError."""
        try:
            while len(self._segments) > 1 and self._segments[1].first_index <= index + 1:
                self._fs.remove(self._segments[0].path)
                del self._segments[0]
        except OSError as err:
            raise StorageError(f"cannot trim the log in {self._directory}: {err.strerror or err}") from err

    def close(self) -> None:
        """Let go of the files."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, items: list[tuple[Kind, bytes]]) -> None:
        data = encode_batch(self._batch + 1, items)
        if self._offset + len(data) > self._segment_bytes and self._batch > 1:
            self._cut(items)
            data = encode_batch(self._batch + 1, items)
        assert self._file is not None
        started = monotonic()
        self._file.write_durably(data, self._offset)
        self.sync_durations.observe(monotonic() - started)
        self._offset += len(data)
        self._batch += 1

    def _cut(self, items: list[tuple[Kind, bytes]]) -> None:
        """Go on in a new segment; all in the old one is durable."""
        first = next((parse_entry(memoryview(p)).index for k, p in items if k is Kind.ENTRY), self.last_index + 1)
        self._begin_segment(self._segments[-1].sequence + 1, first)

    def _begin_segment(self, sequence: int, first_index: Index) -> None:
        segment = _Segment(self._directory / f"{sequence:016x}-{first_index:016x}{_SUFFIX}", sequence, first_index)
        head = SegmentHead(*self.identity, sequence, self._state)
        data = encode_batch(1, [(Kind.SEGMENT, head_payload(head))])
        temporary = segment.path.with_suffix(_TEMPORARY)
        file = self._fs.open(temporary, create=True)
        try:
            file.resize(0, self._segment_bytes)
            file.write(data, 0)
            file.sync()
            self._fs.rename(temporary, segment.path)
        except OSError:
            file.close()
            raise
        self.close()
        self._segments.append(segment)
        self._file, self._offset, self._batch = file, len(data), 1

    # -- reading -------------------------------------------------------------------------------------------------

    def _recover(self) -> Recovered:
        try:
            self._segments = self._list_segments()
            entries = self._read_segments()
            if not self._segments:
                self._begin_segment(1, self._first_index)
        except OSError as err:
            if isinstance(err, StorageError):
                raise
            raise StorageError(f"cannot open the log in {self._directory}: {err.strerror or err}") from err
        return Recovered(self._state, entries)

    def _list_segments(self) -> list[_Segment]:
        found = []
        for name in self._fs.list(self._directory):
            if name.endswith(_TEMPORARY):
                self._fs.remove(self._directory / name)
            elif name.endswith(_SUFFIX):
                sequence, first = name.removesuffix(_SUFFIX).split("-")
                found.append(_Segment(self._directory / name, int(sequence, 16), int(first, 16)))
        return found

    def _read_segments(self) -> list[Entry]:
        entries: list[Entry] = []
        for at, segment in enumerate(self._segments):
            file = self._fs.open(segment.path)
            scan = scan_segment(memoryview(file.read()))
            last = at == len(self._segments) - 1
            self._check_scan(segment, scan)
            for record in scan.records[1:]:
                self._replay(record, entries, segment)
            if last:
                self._resume(file, scan)
            else:
                file.close()
        return entries

    def _check_scan(self, segment: _Segment, scan: Scan) -> None:
        """Refuse a segment that lost what it once confirmed, or that does not belong here."""
        if scan.decayed or not scan.records or scan.records[0].kind != Kind.SEGMENT:
            raise _decayed(segment, scan.end)
        try:
            head = parse_head(scan.records[0].payload)
        except ValueError as err:
            raise StorageError(f"{segment.path}: {err}") from err
        owner = Identity(head.cluster_id, head.member_id)
        if segment is self._segments[0]:
            self.identity = owner
        elif owner != self.identity:
            raise StorageError(f"{segment.path} is of another member than the files before it: restore its directory")
        self.last_index = segment.first_index - 1
        self._state = head.hard_state

    def _replay(self, record: Record, entries: list[Entry], segment: _Segment) -> None:
        if record.kind == Kind.HARD_STATE:
            self._state = parse_state(record.payload)
        elif record.kind == Kind.ENTRY:
            entry = parse_entry(record.payload)
            if entries:
                keep = entry.index - entries[0].index
                if not 0 <= keep <= len(entries):
                    raise _decayed(segment, record.end)
                del entries[keep:]
            entries.append(entry)
            self.last_index = entry.index

    def _resume(self, file: File, scan: Scan) -> None:
        """Make what was read durable, clear the torn rest, and continue behind it."""
        file.resize(scan.end, max(self._segment_bytes, scan.end))
        file.sync()
        self._file, self._offset, self._batch = file, scan.end, scan.batch


def _decayed(segment: _Segment, offset: int) -> StorageError:
    return StorageError(
        f"{segment.path} is damaged at byte {offset}, in a part the disk had confirmed: acknowledged writes may be "
        f"lost. Check the disk, then restore this member from a backup or remove it from its cluster and add it anew; "
        f"do not delete the file"
    )
