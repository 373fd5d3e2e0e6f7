"""Repositories on disk: links from names to blobs of the shared blob store.

Below ``root``, next to ``blobs/`` and ``ingest/``::

    repositories/<name>/_blobs/<digest>              empty: the repository has the blob
    repositories/<name>/_manifests/<digest>          the media type of a manifest, whose bytes are a blob
    repositories/<name>/_tags/<tag>                  the digest that a tag means
    repositories/<name>/_referrers/<subject>/<digest>   empty: a manifest whose subject is that

No component of a repository's name begins with ``_``, so the two never meet. Every link is made after what it names is
durable, aside and by rename; so a kill leaves at worst a blob without link, and start sweeps those.
"""

import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from cri_runtime.images.blobs import BlobStore, fsync_directory
from cri_runtime.images.digest import Digest
from cri_runtime.images.errors import InvalidDigest
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
        self._root = root / "repositories"
        self._root.mkdir(parents=True, exist_ok=True)
        self.blobs.sweep({digest for repository in self.all() for digest in repository.linked()})

    def get(self, name: str) -> "Repository":
        """A repository, which need not exist yet. Raises the refusal NAME_INVALID."""
        if not _NAME.match(name) or len(name) > _NAME_LENGTH_MAX:
            raise errors.name_invalid(name)
        return Repository(name, self._root / name, self.blobs)

    def all(self) -> Iterator["Repository"]:
        """Every repository that exists, sorted by name."""
        found = []
        for folder, folders, _ in os.walk(self._root):
            if any(name.startswith("_") for name in folders):
                found.append(str(Path(folder).relative_to(self._root)))
            folders[:] = [name for name in folders if not name.startswith("_")]
        return (Repository(name, self._root / name, self.blobs) for name in sorted(found))


class Repository:
    """One repository."""

    def __init__(self, name: str, path: Path, blobs: BlobStore) -> None:
        self.name = name
        self._path = path
        self._blobs = blobs

    @property
    def exists(self) -> bool:
        """Whether anything was ever pushed to it."""
        return self._path.is_dir() and any(child.name.startswith("_") for child in self._path.iterdir())

    # --- blobs

    def has_blob(self, digest: Digest) -> bool:
        """Whether the repository has the blob."""
        return (self._path / "_blobs" / digest).exists() and digest in self._blobs

    def link_blob(self, digest: Digest) -> None:
        """Give the repository a blob of the store."""
        _write(self._path / "_blobs" / digest, b"")

    def unlink_blob(self, digest: Digest) -> bool:
        """Take it away; whether it was there."""
        return _unlink(self._path / "_blobs" / digest)

    # --- manifests

    def resolve(self, reference: str) -> Digest:
        """The digest of a tag or digest that the repository has. Raises the refusal MANIFEST_UNKNOWN."""
        digest = self._tagged(reference) if _TAG.match(reference) else _maybe_digest(reference)
        if digest is None or not (self._path / "_manifests" / digest).exists():
            raise errors.manifest_unknown(reference)
        return digest

    def _tagged(self, tag: str) -> Digest | None:
        try:
            return Digest((self._path / "_tags" / tag).read_text())
        except (OSError, InvalidDigest):
            return None

    def media_type(self, digest: Digest) -> str:
        """Of a manifest that the repository has."""
        return (self._path / "_manifests" / digest).read_text()

    def put_manifest(self, digest: Digest, media_type: str, tag: str | None, subject: Digest | None) -> None:
        """Link a manifest whose bytes are stored, then its subject, then its tag."""
        _write(self._path / "_manifests" / digest, media_type.encode())
        if subject is not None:
            _write(self._path / "_referrers" / subject / digest, b"")
        if tag is not None:
            _write(self._path / "_tags" / tag, digest.encode())

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
