"""COPY and ADD: which files go where (reads trees, changes nothing), their fingerprint, and the layer of them.

Source: the Dockerfile reference, "COPY" and "ADD"; in what it leaves open, what BuildKit does: a directory's contents
are copied, not itself; a link that is named is followed, a link inside a copied directory stays one; a directory that
the image has already keeps its owner and mode.
"""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

from cri_runtime.build.errors import StepFailed
from cri_runtime.build.matching import excluded, has_glob, matches_name
from cri_runtime.build.state import CopyFiles
from cri_runtime.images.digest import Digest, Hasher
from cri_runtime.images.errors import UnsafeLayer
from cri_runtime.images.layer import (
    CHUNK_BYTES,
    LayerWriter,
    WrittenLayer,
    directory_entry,
    file_entry,
    symlink_entry,
)
from cri_runtime.images.tree import Found, Rel, Stack, split
from cri_runtime.images.xattrs import kept_xattrs

Owner = tuple[int, int]


@dataclass(frozen=True)
class Item:
    """One file, directory or link to be."""

    target: Rel
    """Canonical place in the stage."""
    uid: int
    gid: int
    mode: int
    mtime_ns: int
    source: tuple[Stack, Rel, Found] | None = None
    """What it is a copy of; None: made here."""
    content: bytes | None = None
    """Of a file made here; None with no source: a directory."""

    @property
    def kind(self) -> str:
        """``dir``, ``file`` or ``link``."""
        if self.source is None:
            return "dir" if self.content is None else "file"
        found = self.source[2]
        return "dir" if found.is_dir else "link" if found.is_link else "file"


@dataclass(frozen=True)
class Source:
    """Where a COPY takes from."""

    stack: Stack
    title: str
    """For people: "the build context", "stage builder"."""
    keeps_owner: bool
    """Owners are the files' own, not root."""


def plan_copy(action: CopyFiles, source: Source, stage: Stack, owner: Owner | None) -> list[Item]:
    """The items of one COPY, sorted, parents first. Raises StepFailed naming line and file, UnsafeLayer."""
    planner = _Planner(action, source, stage, owner)
    planner.run()
    return planner.items()


class _Planner:
    def __init__(self, action: CopyFiles, source: Source, stage: Stack, owner: Owner | None) -> None:
        self._action = action
        self._source = source
        self._stage = stage
        self._owner = owner
        self._items: dict[Rel, Item] = {}
        self._base = stage.resolve(split(action.target), follow_last=True)

    def run(self) -> None:
        matches = [match for text in self._action.sources for match in self._matches(text)]
        self._check_target(len(matches) + len(self._action.documents))
        for name, place, found in matches:
            if found.is_dir:
                self._directory(place, found)
            else:
                self._file(place, found, self._file_target(name))
        for document in self._action.documents:
            self._put(self._made(self._file_target(document.name), 0o644, document.content.encode()))

    def items(self) -> list[Item]:
        """What was planned, with the parents that the stage lacks."""
        for target in [*self._items]:
            for depth in range(1, len(target)):
                self._parent(target[:depth])
        return [self._items[target] for target in sorted(self._items)]

    def _fail(self, message: str) -> StepFailed:
        return StepFailed(self._action.line, message)

    def _matches(self, text: str) -> list[tuple[str, Rel, Found]]:
        """Name, place and kind of what a source argument names."""
        stack = self._source.stack
        pattern = [name for name in split(text) if name != ".."]
        places = list(self._glob((), pattern)) if has_glob(text) else [stack.resolve(split(text), follow_last=True)]
        found = []
        for place in places:
            real = stack.resolve(place, follow_last=True)
            entry = stack.lookup(real)
            if entry is not None and not self._excluded(place):
                name = place[-1] if has_glob(text) and place else (split(text) or ("",))[-1]
                found.append((name, real, entry))
        if not found:
            raise self._fail(f'"{text}" is not in {self._source.title}{self._hint(text)}')
        return found

    def _hint(self, text: str) -> str:
        if self._source.title == "the build context" and (text.startswith("..") or "/.." in text):
            return ": paths outside the context cannot be copied"
        return " (or .dockerignore leaves it out)" if self._source.title == "the build context" else ""

    def _glob(self, at: Rel, pattern: Sequence[str]) -> Iterator[Rel]:
        if not pattern:
            yield at
            return
        here = self._source.stack.resolve(at, follow_last=True)
        found = self._source.stack.lookup(here)
        if found is None or not found.is_dir:
            return
        for name in self._source.stack.listdir(here):
            if matches_name(pattern[0], name):
                yield from self._glob((*at, name), pattern[1:])

    def _check_target(self, count: int) -> None:
        if count > 1 and not self._is_directory_target():
            raise self._fail(f"several files go to {self._action.target}: a target that is a directory ends in /")

    def _is_directory_target(self) -> bool:
        return self._action.target.endswith("/")

    def _file_target(self, name: str) -> Rel:
        there = self._stage.lookup(self._base)
        if self._is_directory_target() or (there is not None and there.is_dir):
            return (*self._base, name)
        return self._base

    def _directory(self, place: Rel, found: Found) -> None:
        """Copy the contents of a directory. The target, where it is new, is like the source; but 0755 when it is named
        as a directory, or the source is all of the context, whose own mode says nothing."""
        plain = self._is_directory_target() or not place
        self._put(self._made(self._base, 0o755, None) if plain else self._copied(place, found, self._base))
        for rel, entry in _walk(self._source.stack, place):
            if self._excluded((*place, *rel)):
                continue
            target = (*self._base, *rel)
            if entry.is_dir:
                self._put(self._copied((*place, *rel), entry, target))
            else:
                self._file((*place, *rel), entry, target)

    def _file(self, place: Rel, found: Found, target: Rel) -> None:
        kind = stat.S_IFMT(found.st.st_mode)
        if kind == stat.S_IFSOCK:
            return
        if kind not in (stat.S_IFREG, stat.S_IFLNK):
            raise self._fail(f'"{"/".join(place)}" is neither a file, a directory nor a link')
        self._put(self._copied(place, found, target))

    def _put(self, item: Item) -> None:
        there = self._stage.lookup(item.target) if item.target else None
        if not item.target or (there is not None and there.is_dir and item.kind == "dir"):
            return
        if there is not None and there.is_dir != (item.kind == "dir"):
            what = "a directory" if there.is_dir else "no directory"
            raise self._fail(f'"/{"/".join(item.target)}" is {what} in the image')
        self._items[item.target] = item

    def _copied(self, place: Rel, found: Found, target: Rel) -> Item:
        uid, gid = self._owner or ((found.st.st_uid, found.st.st_gid) if self._source.keeps_owner else (0, 0))
        mode = stat.S_IMODE(found.st.st_mode) if self._action.mode is None else self._action.mode
        return Item(target, uid, gid, mode, found.st.st_mtime_ns, (self._source.stack, place, found))

    def _made(self, target: Rel, mode: int, content: bytes | None) -> Item:
        uid, gid = self._owner or (0, 0)
        asked = self._action.mode if content is not None else None
        return Item(target, uid, gid, mode if asked is None else asked, 0, None, content)

    def _parent(self, target: Rel) -> None:
        if target in self._items:
            return
        there = self._stage.lookup(target)
        if there is None:
            self._items[target] = self._made(target, 0o755, None)
        elif not there.is_dir:
            raise self._fail(f'"/{"/".join(target)}" is no directory in the image')

    def _excluded(self, place: Rel) -> bool:
        return excluded(place, self._action.exclude)


def _walk(stack: Stack, top: Rel, below: Rel = ()) -> Iterator[tuple[Rel, Found]]:
    """Everything below the directory ``top``, parents first, sorted."""
    for name in stack.listdir((*top, *below)):
        rel = (*below, name)
        found = stack.lookup((*top, *rel))
        if found is not None:
            yield rel, found
            if found.is_dir:
                yield from _walk(stack, top, rel)


def plan_directory(target: str, stage: Stack, owner: Owner) -> list[Item]:
    """The directories that WORKDIR has to make: none when they are there. Raises UnsafeLayer."""
    place = stage.resolve(split(target), follow_last=True)
    made = []
    for depth in range(1, len(place) + 1):
        there = stage.lookup(place[:depth])
        if there is None:
            made.append(Item(place[:depth], *(owner if depth == len(place) else (0, 0)), 0o755, 0))
        elif not there.is_dir:
            raise UnsafeLayer(f'"/{"/".join(place[:depth])}" is no directory in the image')
    return made


def fingerprints(items: Sequence[Item]) -> dict[str, Digest]:
    """What the cache compares of each item, by path: kind, owner, mode and content; not times. Reads every file.

    Blocks.
    """
    found = {}
    for item in items:
        head = "\0".join(map(str, (item.kind, item.uid, item.gid, item.mode, _content_digest(item))))
        found["/".join(item.target)] = Digest.of(head.encode())
    return found


def fingerprint(prints: Mapping[str, Digest]) -> Digest:
    """All of them as one."""
    hasher = Hasher()
    for path, digest in prints.items():
        hasher.update(path.encode("utf-8", "surrogateescape") + b"\0" + digest.encode() + b"\n")
    return hasher.digest()


def fingerprint_of(stack: Stack, place: Rel) -> Digest:
    """The same of everything at and below a place of a tree, with its own owners and modes. Blocks."""
    found = stack.lookup(place)
    below = _walk(stack, place) if found is None or found.is_dir else iter(())
    entries = [*([((), found)] if found else []), *below]
    items = []
    for rel, entry in entries:
        st, source = entry.st, (stack, (*place, *rel), entry)
        if stat.S_IFMT(st.st_mode) in (stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR):
            items.append(Item(rel, st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode), 0, source))
    return fingerprint(fingerprints(items))


def _content_digest(item: Item) -> Digest:
    if item.kind == "link":
        return Digest.of(os.fsencode(_link_target(item)))
    hasher = Hasher()
    if item.kind == "file":
        with open_item(item) as file:
            while chunk := file.read(CHUNK_BYTES):
                hasher.update(chunk)
    return hasher.digest()


def write_layer(items: Sequence[Item], writer: LayerWriter) -> WrittenLayer:
    """The layer of the items. The same items with the same times give the same bytes. Blocks."""
    for item in items:
        name, mtime = "/".join(item.target), _seconds(item.mtime_ns)
        if item.kind == "dir":
            writer.add(directory_entry(name, item.mode, item.uid, item.gid, mtime))
        elif item.kind == "link":
            writer.add(symlink_entry(name, _link_target(item), item.uid, item.gid, mtime))
        else:
            with open_item(item) as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(0)
                entry = file_entry(name, size, item.mode, item.uid, item.gid, mtime)
                entry.pax_headers = {} if item.source is None else kept_xattrs(file.fileno())
                writer.add(entry, file)
    return writer.commit()


def _seconds(mtime_ns: int) -> float:
    """Whole seconds: what tar holds without an extended header, and what every tool agrees on."""
    return mtime_ns // 1_000_000_000


def _link_target(item: Item) -> str:
    if item.source is None:
        return ""
    stack, place, _ = item.source
    return stack.readlink(place) or ""


def open_item(item: Item) -> BinaryIO:
    """The content of a file item; the caller closes it."""
    if item.source is None:
        return BytesIO(item.content or b"")
    _, place, found = item.source
    return open(found.tree.open(place), "rb")  # noqa: PTH123 (a descriptor, the caller closes it)
