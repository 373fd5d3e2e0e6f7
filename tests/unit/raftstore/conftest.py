"""A disk whose power can be cut."""

import random
from pathlib import Path

import pytest

from raftstore.wal.fs import File


class Sector:
    BYTES = 512


class MemoryFile:
    """A file with what its owner wrote and what the disk has confirmed."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = b""

    def read(self) -> bytes:
        return bytes(self.data)

    def write(self, data: bytes, offset: int) -> None:
        if len(self.data) < offset + len(data):
            self.data.extend(bytes(offset + len(data) - len(self.data)))
        self.data[offset : offset + len(data)] = data

    def write_durably(self, data: bytes, offset: int) -> None:
        self.write(data, offset)
        self.sync()

    def sync(self) -> None:
        self.durable = bytes(self.data)

    def resize(self, used_bytes: int, size_bytes: int) -> None:
        del self.data[used_bytes:]
        self.data.extend(bytes(max(size_bytes - used_bytes, 0)))

    def close(self) -> None:
        pass

    def lose_power(self, dice: random.Random) -> None:
        """Keep what is confirmed and, of the rest, any set of sectors."""
        after = bytearray(self.durable)
        if dice.random() < 0.5:
            after.extend(bytes(max(len(self.data) - len(after), 0)))
        for start in range(0, len(after), Sector.BYTES):
            if dice.random() < 0.5:
                after[start : start + Sector.BYTES] = self.data[start : start + Sector.BYTES]
        self.data = after
        self.durable = bytes(after)


class MemoryFS:
    """A file system in memory; renames and removals are durable at once, as the port promises."""

    def __init__(self) -> None:
        self.files: dict[Path, MemoryFile] = {}

    def list(self, directory: Path) -> list[str]:
        return sorted(path.name for path in self.files if path.parent == directory)

    def open(self, path: Path, create: bool = False) -> File:
        if create:
            self.files[path] = MemoryFile()
        return self.files[path]

    def rename(self, old: Path, new: Path) -> None:
        self.files[new] = self.files.pop(old)

    def remove(self, path: Path) -> None:
        self.files.pop(path, None)

    def lose_power(self, dice: random.Random) -> None:
        for file in self.files.values():
            file.lose_power(dice)


@pytest.fixture
def memory_fs() -> MemoryFS:
    return MemoryFS()
