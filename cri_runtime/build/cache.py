"""The build cache: from what a step would do to the layer that it made. By content, so it survives restarts and moves.

One small JSON file per key below ``root``. A record counts only while its layer is in the store; the image store asks
:meth:`BuildCache.digests` what to spare.
"""

import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cri_runtime.build.mounts import RunMount
from cri_runtime.images.digest import Digest
from cri_runtime.images.errors import ImageError
from cri_runtime.images.locks import KeyedLocks
from cri_runtime.images.manifest import Descriptor, dump, parse_descriptor


@dataclass(frozen=True)
class Record:
    """What a step made: its layer on top of a chain, and when (RFC 3339). Without layer: only when."""

    created: str
    layer: Descriptor | None = None
    diff_id: Digest | None = None
    chain_id: Digest | None = None


class BuildCache:
    """Records below one directory; losing one costs time, never correctness, so nothing is fsynced."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._notes = root / "notes"
        self._notes.mkdir(parents=True, exist_ok=True, mode=0o700)

    @staticmethod
    def key(*parts: Any) -> str:
        """The key of JSON-able parts."""
        return Digest.of(dump(parts)).hex

    def get(self, key: str) -> Record | None:
        """The record of a key; None when there is none that can be read."""
        try:
            body = json.loads((self._root / key).read_bytes())
            if "layer" not in body:
                return Record(body["created"])
            layer = parse_descriptor(body["layer"])
            return Record(body["created"], layer, Digest(body["diff_id"]), Digest(body["chain_id"]))
        except (OSError, ValueError, KeyError, ImageError):
            return None

    def put(self, key: str, record: Record) -> None:
        """Remember. Raises OSError."""
        body: dict[str, Any] = {"created": record.created}
        if record.layer is not None:
            body |= {"layer": record.layer.to_json(), "diff_id": record.diff_id, "chain_id": record.chain_id}
        scratch = self._root / f".{key}"
        scratch.write_bytes(dump(body))
        scratch.replace(self._root / key)

    def note(self, place: str, parts: Mapping[str, str]) -> dict[str, str]:
        """Remember what the step at ``place`` was made of; returns what it was made of before, empty if unknown."""
        path = self._notes / Digest.of(place.encode()).hex
        try:
            before = json.loads(path.read_bytes())
        except (OSError, ValueError):
            before = {}
        if before != parts:
            scratch = path.with_name(f".{secrets.token_hex(8)}")
            scratch.write_bytes(dump(dict(parts)))
            scratch.replace(path)
        return before if isinstance(before, dict) else {}

    def digests(self) -> Iterator[Digest]:
        """Blobs and chain ids that records speak of."""
        for path in self._root.glob("[0-9a-f]*"):
            record = self.get(path.name)
            if record is not None and record.layer is not None and record.chain_id is not None:
                yield from (record.layer.digest, record.chain_id)

    def clear(self) -> None:
        """Forget everything."""
        for path in [*self._root.iterdir(), *self._notes.iterdir()]:
            if path.is_file():
                path.unlink(missing_ok=True)


class CacheMounts:
    """The directories of ``RUN --mount=type=cache``, which stay from build to build."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._root = root
        self._locks = KeyedLocks()
        self._used: Counter[str] = Counter()

    @asynccontextmanager
    async def use(self, mount: RunMount) -> AsyncIterator[Path]:
        """The directory of a mount for the length of the block: waited for when ``locked``, one's own when ``private``
        and another build has it."""
        async with AsyncExitStack() as stack:
            name = mount.cache_id
            if mount.sharing == "locked":
                await stack.enter_async_context(self._locks(f"locked-{name}"))
            if mount.sharing == "private":
                number = 0
                while self._locks.held(f"{name}-{number}"):
                    number += 1
                name = f"{name}-{number}"
                await stack.enter_async_context(self._locks(name))
            self._used[name] += 1
            stack.callback(self._used.subtract, [name])
            yield self._directory(name, mount)

    def _directory(self, name: str, mount: RunMount) -> Path:
        path = self._root / name
        if not path.exists():
            path.mkdir()
            os.chown(path, mount.uid, mount.gid)
            path.chmod(mount.mode)
        return path

    def clear(self) -> int:
        """Remove those that no build uses; returns the bytes freed. Blocks."""
        freed = 0
        for path in self._root.iterdir():
            if not self._used[path.name]:
                freed += sum(p.lstat().st_size for p in path.rglob("*") if p.is_file() and not p.is_symlink())
                shutil.rmtree(path, ignore_errors=True)
        return freed
