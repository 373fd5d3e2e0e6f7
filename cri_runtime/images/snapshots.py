"""Unpacked layers by chain id: the lower directories of containers.

On disk below ``root``::

    snapshots/<key>/        the unpacked layer, an overlayfs lower directory; key: the chain id's first 128 bits,
                            because all lowerdir= paths of one mount must fit a page
    snapshots/<key>.json    chain id, parent, diff id, bytes and inodes; written before the directory appears
    unpacking/<random>/     what is being unpacked; emptied at start

A directory appears by rename, complete or not at all. It is no promise to the disk: after a power cut a damaged
snapshot can be made again from its blob, which is.
"""

import asyncio
import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cri_runtime.images.blobs import BlobStore
from cri_runtime.images.digest import Digest
from cri_runtime.images.errors import ContentMismatch
from cri_runtime.images.layer import LayerReader
from cri_runtime.images.locks import KeyedLocks
from cri_runtime.images.unpack import Limits, Usage, unpack

_KEY_HEX_DIGITS = 32


@dataclass(frozen=True)
class Snapshot:
    """One unpacked layer."""

    chain_id: Digest
    diff_id: Digest
    size_bytes: int
    inodes: int


class Snapshots:
    """Unpacked layers below one directory. One process owns it."""

    def __init__(self, root: Path, blobs: BlobStore, limits: Limits | None = None) -> None:
        """Open or make the directory; what a killed unpacking left is removed."""
        self._dir = root / "snapshots"
        self._unpacking = root / "unpacking"
        self._blobs = blobs
        self._limits = limits
        self._locks = KeyedLocks()
        self._known: dict[Digest, Snapshot] = {}
        self.fresh: set[Digest] = set()
        """Chain ids unpacked since the owner last cleared this; spared by :meth:`sweep`."""
        self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        _remove_trees([self._unpacking])
        self._unpacking.mkdir(mode=0o700)
        _remove_trees(p for p in self._dir.iterdir() if p.is_dir() and not p.with_suffix(".json").exists())

    def path(self, chain_id: Digest) -> Path:
        """Where the snapshot lies or would lie."""
        return self._dir / chain_id.hex[:_KEY_HEX_DIGITS]

    def get(self, chain_id: Digest) -> Snapshot | None:
        """The snapshot of a chain id, None when it is not unpacked."""
        if chain_id not in self._known:
            found = self._load(self.path(chain_id))
            if found is None or found.chain_id != chain_id:
                return None
            self._known[chain_id] = found
        return self._known[chain_id]

    @staticmethod
    def _load(path: Path) -> Snapshot | None:
        try:
            body = json.loads(path.with_suffix(".json").read_bytes())
            if not path.is_dir():
                return None
            return Snapshot(Digest(body["chain_id"]), Digest(body["diff_id"]), body["size_bytes"], body["inodes"])
        except (OSError, ValueError, KeyError):  # absent, or torn by a power cut: unpack again
            return None

    async def ensure(self, layer: Digest, diff_id: Digest, chain: Sequence[Digest]) -> Snapshot:
        """Unpack blob ``layer`` as the top of ``chain`` (chain ids, lowest first) unless that is done.

        The layers below must be unpacked. Callers that want the same snapshot at once share the work.
        Raises UnsafeLayer, ContentMismatch when the tar is not ``diff_id``, BlobNotFound, OSError.
        """
        chain_id = chain[-1]
        async with self._locks(chain_id):
            snapshot = self.get(chain_id)
            if snapshot is None:
                self.fresh.add(chain_id)
                snapshot = await asyncio.to_thread(self._unpack, layer, diff_id, chain)
                self._known[chain_id] = snapshot
            return snapshot

    def _unpack(self, layer: Digest, diff_id: Digest, chain: Sequence[Digest]) -> Snapshot:
        scratch = self._unpacking / secrets.token_hex(8)
        scratch.mkdir()
        scratch.chmod(0o755)
        lowers = [self.path(chain_id) for chain_id in reversed(chain[:-1])]
        try:
            with self._blobs.open(layer) as blob, LayerReader(blob) as reader:
                usage = unpack(reader, scratch, lowers, self._limits)
                found = reader.diff_id()
            if found != diff_id:
                raise ContentMismatch(f"layer {layer} unpacks to {found}, the image config says {diff_id}")
            return self._install(scratch, chain[-1], diff_id, usage)
        finally:
            _remove_trees([scratch])

    def _install(self, scratch: Path, chain_id: Digest, diff_id: Digest, usage: Usage) -> Snapshot:
        snapshot = Snapshot(chain_id, diff_id, usage.size_bytes, usage.inodes)
        target = self.path(chain_id)
        record = scratch.with_suffix(".json")
        record.write_text(json.dumps(asdict(snapshot)))
        record.replace(target.with_suffix(".json"))
        try:
            scratch.rename(target)
        except OSError:  # the thread of a cancelled caller was faster
            if self._load(target) is None:
                raise
        return snapshot

    def all(self) -> Iterator[Snapshot]:
        """Every complete snapshot, in no order."""
        for record in self._dir.glob("*.json"):
            found = self._load(record.with_suffix(""))
            if found is not None:
                yield found

    def sweep(self, keep: set[Digest]) -> int:
        """Remove every snapshot whose chain id is neither in ``keep`` nor fresh; returns the bytes freed. Blocks."""
        doomed = [s for s in self.all() if s.chain_id not in keep | self.fresh and not self._locks.held(s.chain_id)]
        for snapshot in doomed:
            self._known.pop(snapshot.chain_id, None)
            path = self.path(snapshot.chain_id)
            gone = self._unpacking / secrets.token_hex(8)
            path.rename(gone)
            path.with_suffix(".json").unlink(missing_ok=True)
            _remove_trees([gone])
        return sum(s.size_bytes for s in doomed)


def _remove_trees(paths: Iterable[Path]) -> None:
    """Remove directories as a crash left them; whoever was faster is right."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
