"""The log on disk: what comes back after a crash, and what must not be taken for a crash."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raftstore.errors import StorageError
from raftstore.raft.types import Entry, HardState
from raftstore.wal.fs import OSFS
from raftstore.wal.record import Kind, encode_batch, entry_payload, scan_segment
from raftstore.wal.wal import Identity, Wal

ME = Identity(cluster_id=7, member_id=1)
DIRECTORY = Path("/wal")


def entries(first: int, count: int, term: int = 1, size: int = 20) -> list[Entry]:
    return [Entry(index, term, b"%d" % index * size) for index in range(first, first + count)]


@pytest.fixture
def open_wal(memory_fs: Any) -> Callable[..., Wal]:
    return lambda segment_bytes=4096: Wal(memory_fs, DIRECTORY, ME, segment_bytes)


def last_segment(fs: Any) -> Any:
    return fs.files[max(fs.files)]


def test_what_was_appended_comes_back(open_wal: Callable[..., Wal]) -> None:
    wal = open_wal()
    wal.append(HardState(1, 1, 0), entries(1, 3))
    wal.append(None, entries(4, 2))
    recovered = open_wal().recovered
    assert recovered.hard_state == HardState(1, 1, 0)
    assert recovered.entries == entries(1, 5)


def test_an_entry_of_the_same_index_replaces_the_earlier_and_all_behind_it(open_wal: Callable[..., Wal]) -> None:
    wal = open_wal()
    wal.append(None, entries(1, 5))
    wal.append(None, entries(3, 1, term=2))
    assert open_wal().recovered.entries == [*entries(1, 2), *entries(3, 1, term=2)]


def test_segments_follow_each_other_and_carry_the_hard_state_over(open_wal: Callable[..., Wal], memory_fs: Any) -> None:
    wal = open_wal(1024)
    wal.append(HardState(3, 1, 0), [])
    for index in range(1, 60):
        wal.append(None, entries(index, 1))
    assert len(memory_fs.files) > 3
    wal.trim(50)
    recovered = open_wal(1024).recovered
    assert recovered.hard_state == HardState(3, 1, 0)
    assert recovered.entries[-1].index == 59
    assert recovered.entries[0].index <= 51
    assert recovered.entries == entries(recovered.entries[0].index, 60 - recovered.entries[0].index)


def test_trimming_keeps_every_entry_above_the_index(open_wal: Callable[..., Wal]) -> None:
    wal = open_wal(512)
    for index in range(1, 40):
        wal.append(None, entries(index, 1))
        wal.trim(index - 1)
        assert index in [entry.index for entry in open_wal(512).recovered.entries]


def test_a_batch_larger_than_a_segment_is_kept_whole(open_wal: Callable[..., Wal]) -> None:
    open_wal(512).append(None, entries(1, 100))
    assert open_wal(512).recovered.entries == entries(1, 100)


@pytest.mark.parametrize("seed", range(200))
def test_power_loss_keeps_all_confirmed_batches_and_no_part_of_another(seed: int, memory_fs: Any) -> None:
    dice = random.Random(seed)
    wal = Wal(memory_fs, DIRECTORY, ME, 2048)
    confirmed = 0
    for _ in range(dice.randint(1, 12)):
        count = dice.randint(1, 8)
        wal.append(None, entries(confirmed + 1, count, size=dice.choice([1, 30, 200])))
        confirmed += count
    size = dice.choice([1, 30, 200])
    interrupted = entries(confirmed + 1, dice.randint(1, 8), size=size)
    data = encode_batch(wal._batch + 1, [(Kind.ENTRY, entry_payload(entry)) for entry in interrupted])
    wal._file.write(data[: dice.randint(1, len(data))], wal._offset)
    memory_fs.lose_power(dice)
    recovered = Wal(memory_fs, DIRECTORY, ME, 2048).recovered
    assert [entry.index for entry in recovered.entries] in (
        list(range(1, confirmed + 1)),
        list(range(1, confirmed + 1 + len(interrupted))),
    )
    again = Wal(memory_fs, DIRECTORY, ME, 2048)
    assert again.recovered == recovered
    again.append(None, entries(len(recovered.entries) + 1, 1))
    assert len(Wal(memory_fs, DIRECTORY, ME, 2048).recovered.entries) == len(recovered.entries) + 1


@pytest.mark.parametrize("flip", [4, 20, 30])
def test_decay_of_a_confirmed_batch_refuses_to_start_and_says_what_to_do(
    flip: int, open_wal: Callable[..., Wal], memory_fs: Any
) -> None:
    wal = open_wal()
    for index in (1, 2, 3):
        offset = wal._offset
        wal.append(None, entries(index, 1))
        if index == 1:
            decayed = offset + flip
    last_segment(memory_fs).data[decayed] ^= 0x10
    with pytest.raises(StorageError, match=r"damaged at byte .* restore this member from a backup"):
        open_wal()


def test_zeros_inside_confirmed_batches_are_decay_too(open_wal: Callable[..., Wal], memory_fs: Any) -> None:
    wal = open_wal()
    offset = wal._offset
    for index in range(1, 5):
        wal.append(None, entries(index, 2))
    data = last_segment(memory_fs).data
    data[offset : offset + 100] = bytes(100)
    with pytest.raises(StorageError, match="damaged"):
        open_wal()


def test_a_damaged_earlier_segment_refuses_to_start(open_wal: Callable[..., Wal], memory_fs: Any) -> None:
    wal = open_wal(512)
    for index in range(1, 40):
        wal.append(None, entries(index, 1))
    first = memory_fs.files[min(memory_fs.files)]
    first.data[200] ^= 1
    with pytest.raises(StorageError, match="damaged"):
        open_wal(512)


def test_a_missing_segment_refuses_to_start(open_wal: Callable[..., Wal], memory_fs: Any) -> None:
    wal = open_wal(512)
    for index in range(1, 40):
        wal.append(None, entries(index, 1))
    del memory_fs.files[sorted(memory_fs.files)[1]]
    with pytest.raises(StorageError):
        open_wal(512)


def test_segments_of_two_members_do_not_mix(open_wal: Callable[..., Wal], memory_fs: Any) -> None:
    wal = open_wal(512)
    for index in range(1, 20):
        wal.append(None, entries(index, 1))
    Wal(memory_fs, Path("/other"), Identity(7, 2), 512)
    stranger = memory_fs.files[next(path for path in memory_fs.files if path.parent == Path("/other"))]
    memory_fs.files[DIRECTORY / "00000000000000ff-0000000000000014.wal"] = stranger
    with pytest.raises(StorageError, match="another member"):
        open_wal(512)


def test_a_log_of_another_format_is_named(memory_fs: Any, open_wal: Callable[..., Wal]) -> None:
    open_wal()
    segment = last_segment(memory_fs)
    payload = bytearray(scan_segment(memoryview(bytes(segment.data))).records[0].payload)
    payload[0] = 99
    segment.write(encode_batch(1, [(Kind.SEGMENT, bytes(payload))]), 0)
    with pytest.raises(StorageError, match="log format 99"):
        open_wal()


def test_real_files_survive_reopening(tmp_path: Path) -> None:
    for round in range(5):
        wal = Wal(OSFS(), tmp_path, ME, 4096)
        assert wal.recovered.entries == entries(1, round * 50)
        for index in range(round * 50 + 1, round * 50 + 51):
            wal.append(None, entries(index, 1))
        wal.close()
    assert all(path.stat().st_size == 4096 for path in tmp_path.iterdir())


def test_identity_comes_from_the_disk_once_there_is_one(tmp_path: Path) -> None:
    Wal(OSFS(), tmp_path, ME).close()
    assert Wal(OSFS(), tmp_path, Identity(9, 9)).identity == ME


def test_a_full_disk_is_named(memory_fs: Any, open_wal: Callable[..., Wal]) -> None:
    wal = open_wal()

    def refuse(data: bytes, offset: int) -> None:
        raise OSError(28, "No space left on device")

    last_segment(memory_fs).write_durably = refuse
    with pytest.raises(StorageError, match="cannot write the log in /wal: No space left on device"):
        wal.append(None, entries(1, 1))
