"""The little of an ELF file that tells what it loads (System V gABI, chapters 4 and 5). Pure.

A dependency was weighed: pyelftools reads all of ELF and DWARF, we need four tags of one segment.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_MAGIC = b"\x7fELF"
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 15, 29
_STRING_BYTES_MAX = 4096
_HEADERS_MAX = 1024


@dataclass(frozen=True)
class Elf:
    """What the dynamic linker reads of a program or library."""

    bits: int
    """32 or 64."""
    machine: int
    """``e_machine``; with ``bits`` it says which libraries fit."""
    interpreter: str | None
    """Path of the dynamic linker (PT_INTERP); None for libraries and static programs."""
    needed: tuple[str, ...]
    rpath: tuple[str, ...]
    runpath: tuple[str, ...]


@dataclass(frozen=True)
class _Segment:
    kind: int
    offset: int
    vaddr: int
    filesz: int


def read_elf(file: BinaryIO) -> Elf | None:
    """Read a file's dynamic section; None when it is not ELF, or too broken to load."""
    ident = file.read(16)
    if len(ident) < 16 or not ident.startswith(_MAGIC) or ident[4] not in (1, 2) or ident[5] not in (1, 2):
        return None
    try:
        return _Reader(file, bits=32 * ident[4], order="<" if ident[5] == 1 else ">").read()
    except (struct.error, UnicodeDecodeError, OverflowError, OSError, ValueError):
        return None


class _Reader:
    def __init__(self, file: BinaryIO, bits: int, order: str) -> None:
        self._file = file
        self._bits = bits
        self._order = order

    def read(self) -> Elf:
        machine = self._unpack("H", 18)[0]
        segments = list(self._segments())
        interpreter = next((self._text(s.offset) for s in segments if s.kind == _PT_INTERP), None)
        tags = [tag for s in segments if s.kind == _PT_DYNAMIC for tag in self._tags(s)]
        strings = next((self._offset(segments, value) for tag, value in tags if tag == _DT_STRTAB), 0)

        def values(wanted: int) -> tuple[str, ...]:
            return tuple(self._text(strings + value) for tag, value in tags if tag == wanted)

        return Elf(
            self._bits,
            machine,
            interpreter,
            values(_DT_NEEDED),
            _directories(values(_DT_RPATH)),
            _directories(values(_DT_RUNPATH)),
        )

    def _unpack(self, form: str, offset: int) -> tuple[int, ...]:
        form = self._order + form
        self._file.seek(offset)
        return struct.unpack(form, self._file.read(struct.calcsize(form)))

    def _segments(self) -> Iterator[_Segment]:
        wide = self._bits == 64
        table = self._unpack("Q" if wide else "I", 32 if wide else 28)[0]
        size, count = self._unpack("HH", 54 if wide else 42)
        for number in range(min(count, _HEADERS_MAX)):
            at = table + number * size
            if wide:
                kind, _, offset, vaddr, _, filesz = self._unpack("IIQQQQ", at)
            else:
                kind, offset, vaddr, _, filesz = self._unpack("IIIII", at)
            yield _Segment(kind, offset, vaddr, filesz)

    def _tags(self, dynamic: _Segment) -> Iterator[tuple[int, int]]:
        form = "qQ" if self._bits == 64 else "iI"
        size = struct.calcsize(self._order + form)
        for number in range(min(dynamic.filesz // size, _HEADERS_MAX * 8)):
            tag, value = self._unpack(form, dynamic.offset + number * size)
            if tag == _DT_NULL:
                return
            yield tag, value

    @staticmethod
    def _offset(segments: list[_Segment], vaddr: int) -> int:
        """Where a virtual address lies in the file."""
        for s in segments:
            if s.kind == _PT_LOAD and s.vaddr <= vaddr < s.vaddr + s.filesz:
                return vaddr - s.vaddr + s.offset
        raise ValueError(f"address {vaddr:#x} is in no segment")

    def _text(self, offset: int) -> str:
        self._file.seek(offset)
        return self._file.read(_STRING_BYTES_MAX).partition(b"\0")[0].decode()


def _directories(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(path for value in values for path in value.split(":") if path)
