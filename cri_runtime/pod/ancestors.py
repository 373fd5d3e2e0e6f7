"""Cgroups above those of containers: which of them are ours to remove.

A cgroup parent that the kubelet made is the kubelet's. One that did not exist when a container needed it is ours: it is
written down before it is made, and removed when nothing is left below it.
"""

import asyncio
import json
from pathlib import Path

from cri_runtime.cgroups import Cgroups, Limits
from cri_runtime.pod.records import Records, write_durably


class Ancestors:
    """The set on disk. All changes go through one event loop; between looking and making there is no await."""

    def __init__(self, root: Path, records: Records, cgroups: Cgroups) -> None:
        self._path = root / "records" / "cgroups.json"
        self._records, self._cgroups = records, cgroups
        self._ours: set[str] = set()  # Invariant: no more than what is on disk
        self._saving = asyncio.Lock()

    def load(self) -> None:
        """Read the set. A damaged one is empty."""
        self._path.with_suffix(".new").unlink(missing_ok=True)
        try:
            self._ours = set(json.loads(self._path.read_bytes()))
        except (OSError, ValueError):
            self._ours = set()

    async def create(self, path: str, limits: Limits) -> None:
        """Make a container's cgroup, and what is missing above it. Raises CgroupError."""
        while missing := set(self._cgroups.missing_ancestors(path)) - self._ours:
            async with self._saving:
                grown = self._ours | missing
                await self._save(grown)
                self._ours = grown
        self._cgroups.create(path, limits)

    async def sweep(self) -> None:
        """Remove those of ours that are empty."""
        async with self._saving:
            left = {path for path in sorted(self._ours, key=len, reverse=True) if not self._remove(path)}
            if left != self._ours:
                self._ours = left
                await self._save(left)

    def _remove(self, path: str) -> bool:
        return not self._cgroups.children(path) and self._cgroups.remove(path)

    async def _save(self, ours: set[str]) -> None:
        await asyncio.shield(self._records.run(write_durably, self._path, json.dumps(sorted(ours)).encode()))
