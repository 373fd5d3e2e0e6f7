"""Which shared libraries a program loads: the search of ld.so(8), done by reading, as ldd tells it by running.

Order for each needed name: the RPATH of the object and of those that loaded it (unless it has a RUNPATH), its RUNPATH,
the cache that ldconfig(8) keeps, the default directories. LD_LIBRARY_PATH does not count: the image has none.
"""

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cri_runtime.images.host.elf import Elf, read_elf

CACHE = Path("/etc/ld.so.cache")
_CACHE_MAGIC = b"glibc-ld.so.cache1.1"
_CACHE_HEADER = struct.Struct("<20sII20x")
_CACHE_ENTRY = struct.Struct("<iIIIQ")
_DEFAULT_DIRECTORIES = ("/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib")
_TRIPLETS = {62: "x86_64-linux-gnu", 183: "aarch64-linux-gnu", 3: "i386-linux-gnu", 40: "arm-linux-gnueabihf"}


@dataclass(frozen=True)
class Closure:
    """All files that loading some objects opens, and the names that were not found (with who wants them)."""

    paths: frozenset[str]
    missing: tuple[tuple[str, str], ...]
    """``(library, object)`` pairs."""
    used_cache: bool
    """Whether some library lies where only the linker's cache leads."""


class Libraries:
    """The host's shared libraries. Reads the cache once; remembers what it has read."""

    def __init__(self, cache: Path = CACHE) -> None:
        self._cache = _read_cache(cache)
        self._elves: dict[str, Elf | None] = {}

    def elf(self, path: str) -> Elf | None:
        """The dynamic section of a file, None when it is no ELF file."""
        if path not in self._elves:
            try:
                with open(path, "rb") as file:  # noqa: PTH123 (thousands of strings)
                    self._elves[path] = read_elf(file)
            except OSError:
                self._elves[path] = None
        return self._elves[path]

    def closure(self, objects: Iterable[str], extra: Iterable[str] = ()) -> Closure:
        """What ``objects`` (absolute paths) load, themselves and their dynamic linkers included.

        ``extra`` are library names that they open while running; missing ones of these are no fault.
        """
        search = _Search(self)
        for path in objects:
            search.load(os.path.realpath(path), path, ())
        for name in extra:
            search.want_optional(name)
        return Closure(frozenset(search.paths), tuple(search.missing), search.used_cache)

    def find(self, name: str, wanted: Elf, directories: Iterable[str]) -> tuple[str, bool] | None:
        """The file that ``name`` means to an object like ``wanted``, and whether the cache was needed."""
        candidates = [f"{d}/{name}" for d in directories]
        defaults = [f"{d}/{name}" for d in default_directories(wanted)]
        for path in candidates:
            if self._fits(path, wanted):
                return path, False
        for path in self._cache.get(name, ()):
            if self._fits(path, wanted):
                return path, path not in defaults
        for path in defaults:
            if self._fits(path, wanted):
                return path, False
        return None

    def _fits(self, path: str, wanted: Elf) -> bool:
        found = self.elf(path)
        return found is not None and (found.bits, found.machine) == (wanted.bits, wanted.machine)


class _Search:
    def __init__(self, libraries: Libraries) -> None:
        self._libraries = libraries
        self.paths: set[str] = set()
        self.missing: list[tuple[str, str]] = []
        self.used_cache = False
        self._first: Elf | None = None

    def load(self, real: str, path: str, inherited: tuple[str, ...]) -> None:
        """Take an object and, depth first, what it needs. ``inherited``: the RPATHs of its loaders."""
        elf = self._libraries.elf(path)
        if elf is None or path in self.paths:
            return
        self.paths.add(path)
        self._first = self._first or elf
        if elf.interpreter:
            self.paths.add(elf.interpreter)
        rpath = () if elf.runpath else (*_expand(elf.rpath, real), *inherited)
        for name in elf.needed:
            self._want(name, path, elf, (*rpath, *_expand(elf.runpath, real)), rpath)

    def _want(self, name: str, path: str, elf: Elf, directories: tuple[str, ...], rpath: tuple[str, ...]) -> None:
        if "/" in name:
            found: tuple[str, bool] | None = (name, False) if self._libraries.elf(name) else None
        else:
            found = self._libraries.find(name, elf, directories)
        if found is None:
            self.missing.append((name, path))
            return
        self.used_cache |= found[1]
        self.load(os.path.realpath(found[0]), found[0], rpath)

    def want_optional(self, name: str) -> None:
        """Take a library if the host has it."""
        found = self._libraries.find(name, self._first, ()) if self._first else None
        if found is not None:
            self.load(os.path.realpath(found[0]), found[0], ())


def default_directories(elf: Elf) -> tuple[str, ...]:
    """Where a linker for objects like ``elf`` looks last; Debian's have a directory per architecture."""
    triplet = _TRIPLETS.get(elf.machine)
    multiarch = (f"/lib/{triplet}", f"/usr/lib/{triplet}") if triplet else ()
    return (*multiarch, *_DEFAULT_DIRECTORIES)


def _expand(directories: tuple[str, ...], real: str) -> tuple[str, ...]:
    origin = os.path.dirname(real)  # noqa: PTH120
    expanded = (d.replace("${ORIGIN}", origin).replace("$ORIGIN", origin) for d in directories)
    return tuple(os.path.normpath(d) for d in expanded if d.startswith("/"))


def _read_cache(path: Path) -> dict[str, list[str]]:
    """Name to paths, from ld.so.cache's new format; empty when there is none (musl) or it is another format."""
    try:
        data = path.read_bytes()
    except OSError:
        return {}
    start = data.find(_CACHE_MAGIC)  # the old format may stand before it
    found: dict[str, list[str]] = {}
    try:
        for name, target in _cache_entries(data[start:]) if start >= 0 else ():
            found.setdefault(name, []).append(target)
    except (struct.error, UnicodeDecodeError):
        return {}
    return found


def _cache_entries(data: bytes) -> Iterator[tuple[str, str]]:
    _, count, _ = _CACHE_HEADER.unpack_from(data)
    for number in range(count):
        _, key, value, _, hwcap = _CACHE_ENTRY.unpack_from(data, _CACHE_HEADER.size + number * _CACHE_ENTRY.size)
        if hwcap == 0:  # others are for some processors only
            yield _cstring(data, key), _cstring(data, value)


def _cstring(data: bytes, offset: int) -> str:
    return data[offset : data.index(b"\0", offset)].decode()
