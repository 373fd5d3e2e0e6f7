"""Repositories on disk: links from names to blobs of the shared blob store.

Below ``root``, next to ``blobs/`` and ``ingest/``::

    repositories/<name>/_blobs/<digest>              empty: the repository has the blob
    repositories/<name>/_manifests/<digest>          the media type of a manifest, whose bytes are a blob
    repositories/<name>/_tags/<tag>                  the digest that a tag means
    repositories/<name>/_referrers/<subject>/<digest>   empty: a manifest whose subject is that

    repositories/<name>/_upstream/<tag>              empty: the tag came from the mirrored registry, not from a push

No component of a repository's name begins with ``_``, so the two never meet. Every link is made after what it names is
durable, aside and by rename; so a kill leaves at worst a blob without link, and start sweeps those.
"""

import asyncio
import os
import re
import secrets
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from cri_runtime.images.blobs import BlobStore, fsync_directory
from cri_runtime.images.digest import Digest
from cri_runtime.images.errors import InvalidDigest
from cri_runtime.images.locks import KeyedLocks
from cri_runtime.registry import errors

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_NAME_LENGTH_MAX = 255


class Repositories:
    """All repositories below one directory. One process owns it. Methods block for small files."""

    def __init__(self, root: Path) -> None:
        """Open or make it; blobs that no repository links are removed."""
        self.blobs = BlobStore(root)
        self.locks = KeyedLocks()
        """By name: whoever adds or removes manifests of a repository, or judges its blobs, holds its lock."""
        self._root = root / "repositories"
        self._root.mkdir(parents=True, exist_ok=True)
        self._one_sweep = asyncio.Lock()
        self._spared: set[Digest] | None = None
        """What was linked since the sweep under way began; None: no sweep."""
        self._being_linked: Counter[Digest] = Counter()
        self._judging = threading.Lock()
        self.blobs.sweep(self._linked())

    def get(self, name: str) -> "Repository":
        """A repository, which need not exist yet. Raises the refusal NAME_INVALID."""
        if not _NAME.match(name) or len(name) > _NAME_LENGTH_MAX:
            raise errors.name_invalid(name)
        return Repository(name, self._root / name, self)

    def all(self) -> Iterator["Repository"]:
        """Every repository that exists, sorted by name."""
        found = []
        for folder, folders, _ in os.walk(self._root):
            if any(name.startswith("_") for name in folders):
                found.append(str(Path(folder).relative_to(self._root)))
            folders[:] = [name for name in folders if not name.startswith("_")]
        return (Repository(name, self._root / name, self) for name in sorted(found))

    def _linked(self) -> set[Digest]:
        return {digest for repository in self.all() for digest in repository.linked()}

    @contextmanager
    def linking(self, digest: Digest) -> Iterator[None]:
        """Keep sweeps off a blob, from before looking whether it is here or storing it until it is linked."""
        with self._judging:
            self._being_linked[digest] += 1
        try:
            yield
        finally:
            with self._judging:
                self._being_linked[digest] -= 1
                self._being_linked += Counter()  # forget what fell to zero
                if self._spared is not None:
                    self._spared.add(digest)

    @asynccontextmanager
    async def sweeping(self) -> AsyncIterator[Callable[[], int]]:
        """A sweep: the value removes blobs without link, and returns the bytes freed; it blocks.

        What is being linked, or was linked since the block began, is spared.
        """
        async with self._one_sweep:
            self._spared = set()
            try:
                yield self._sweep
            finally:
                self._spared = None
                self.blobs.fresh.clear()

    def _sweep(self) -> int:
        linked = self._linked()
        return sum(self._judge(digest) for digest in list(self.blobs.digests()) if digest not in linked)

    def _judge(self, digest: Digest) -> int:
        with self._judging:
            spared = digest in self._being_linked or digest in (self._spared or ())
            return 0 if spared else self.blobs.delete(digest)


class Repository:
    """One repository."""

    def __init__(self, name: str, path: Path, whole: Repositories) -> None:
        self.name = name
        self._path = path
        self._whole = whole
        self._blobs = whole.blobs

    @property
    def exists(self) -> bool:
        """Whether anything was ever pushed to it."""
        return self._path.is_dir() and any(child.name.startswith("_") for child in self._path.iterdir())

    # --- blobs

    def has_blob(self, digest: Digest) -> bool:
        """Whether the repository has the blob."""
        return (self._path / "_blobs" / digest).exists() and digest in self._blobs

    def link_blob(self, digest: Digest) -> None:
        """Give the repository a blob of the store, within :meth:`Repositories.linking`."""
        _write(self._path / "_blobs" / digest, b"")

    def unlink_blob(self, digest: Digest) -> bool:
        """Take it away; whether it was there."""
        return _unlink(self._path / "_blobs" / digest)

    def wish_blob(self, digest: Digest) -> None:
        """Note that a client relies on a blob that is here: its grace period begins anew."""
        path = self._path / "_blobs" / digest
        if path.exists():
            os.utime(path)

    def blobs(self) -> list[Digest]:
        """All its blobs, those of manifests aside."""
        return [Digest(name) for name in _names(self._path / "_blobs")]

    def blob_time(self, digest: Digest) -> float:
        """When the blob was linked or last wished for, seconds since the epoch."""
        return _time(self._path / "_blobs" / digest)

    # --- manifests

    def resolve(self, reference: str) -> Digest:
        """The digest of a tag or digest that the repository has. Raises the refusal MANIFEST_UNKNOWN."""
        digest = self.maybe_resolve(reference)
        if digest is None:
            raise errors.manifest_unknown(reference)
        return digest

    def maybe_resolve(self, reference: str) -> Digest | None:
        """The same; None when it has none."""
        digest = self._tagged(reference) if _TAG.match(reference) else _maybe_digest(reference)
        return digest if digest is not None and (self._path / "_manifests" / digest).exists() else None

    def _tagged(self, tag: str) -> Digest | None:
        try:
            return Digest((self._path / "_tags" / tag).read_text())
        except (OSError, InvalidDigest):
            return None

    def media_type(self, digest: Digest) -> str:
        """Of a manifest that the repository has."""
        return (self._path / "_manifests" / digest).read_text()

    def put_manifest(self, digest: Digest, media_type: str, tags: Iterable[str], subject: Digest | None) -> None:
        """Link a manifest whose bytes are stored, then its subject, then its tags."""
        _write(self._path / "_manifests" / digest, media_type.encode())
        if subject is not None:
            _write(self._path / "_referrers" / subject / digest, b"")
        for tag in tags:
            _unlink(self._path / "_upstream" / tag)
            _write(self._path / "_tags" / tag, digest.encode())

    def put_upstream(self, digest: Digest, media_type: str, tag: str | None, subject: Digest | None) -> None:
        """The same for a manifest of the mirrored registry, whose tag may move there."""
        self.put_manifest(digest, media_type, (), subject)
        if tag is not None:
            _write(self._path / "_upstream" / tag, b"")
            _write(self._path / "_tags" / tag, digest.encode())

    def is_upstream(self, tag: str) -> bool:
        """Whether the tag is the mirrored registry's."""
        return (self._path / "_upstream" / tag).exists()

    def manifest_time(self, digest: Digest) -> float:
        """When the manifest was pushed, seconds since the epoch."""
        return _time(self._path / "_manifests" / digest)

    def delete_manifest(self, digest: Digest, subject: Digest | None) -> None:
        """Take a manifest away, with the tags that mean it."""
        for tag in self.tags():
            if self._tagged(tag) == digest:
                self.delete_tag(tag)
        if subject is not None:
            _unlink(self._path / "_referrers" / subject / digest)
        _unlink(self._path / "_manifests" / digest)

    def manifests(self) -> list[Digest]:
        """Digests of all manifests."""
        return [Digest(name) for name in _names(self._path / "_manifests")]

    # --- tags and referrers

    def tags(self) -> list[str]:
        """All tags, in lexical order."""
        return sorted(_names(self._path / "_tags"))

    def delete_tag(self, tag: str) -> bool:
        """Remove a tag; whether it was there."""
        _unlink(self._path / "_upstream" / tag)
        return _unlink(self._path / "_tags" / tag)

    def referrers(self, subject: Digest) -> list[Digest]:
        """Manifests whose subject is ``subject``, sorted."""
        names = sorted(_names(self._path / "_referrers" / subject))
        return [Digest(name) for name in names if (self._path / "_manifests" / name).exists()]

    def linked(self) -> Iterator[Digest]:
        """Every blob that the repository refers to."""
        for folder in ("_blobs", "_manifests"):
            yield from map(Digest, _names(self._path / folder))


def is_tag(text: str) -> bool:
    """Whether ``text`` can be a tag."""
    return _TAG.match(text) is not None


def _maybe_digest(text: str) -> Digest | None:
    try:
        return Digest(text)
    except InvalidDigest:
        return None


def _names(path: Path) -> list[str]:
    try:
        return [child.name for child in path.iterdir() if not child.name.startswith(".new-")]
    except FileNotFoundError:
        return []


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")  # gone already: nothing to judge


def _write(path: Path, data: bytes) -> None:
    """Put a small file in place, durably."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".new-{secrets.token_hex(8)}")
    with scratch.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
    fsync_directory(path.parent)


def _unlink(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    fsync_directory(path.parent)
    return True
