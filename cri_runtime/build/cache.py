"""The build cache: from what a step would do to the layer that it made. By content, so it survives restarts and moves.

One small JSON file per key below ``root``. A record counts only while its layer is in the store; the image store asks
:meth:`BuildCache.digests` what to spare.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cri_runtime.images.digest import Digest
from cri_runtime.images.errors import ImageError
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
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._root = root

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

    def digests(self) -> Iterator[Digest]:
        """Blobs and chain ids that records speak of."""
        for path in self._root.iterdir():
            record = self.get(path.name)
            if record is not None and record.layer is not None and record.chain_id is not None:
                yield from (record.layer.digest, record.chain_id)

    def clear(self) -> None:
        """Forget everything."""
        for path in self._root.iterdir():
            path.unlink(missing_ok=True)
