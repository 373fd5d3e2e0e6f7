"""Cgroups above those of containers: which of them are ours to remove.

A cgroup parent that the kubelet made is the kubelet's. One that did not exist when a container needed it is ours: it is
written down before it is made, and removed when nothing is left below it. The file need not be synced: cgroups do not
survive a loss of power either.
"""

import json
from pathlib import Path

from cri_runtime.cgroups import Cgroups, Limits


class Ancestors:
    """The set, in ``cgroups.json`` of the state directory. Calls are quick; none waits between looking and making."""

    def __init__(self, state: Path, cgroups: Cgroups) -> None:
        self._path = state / "cgroups.json"
        self._cgroups = cgroups
        self._ours: set[str] = set()  # Invariant: no more than what is written down

    def load(self) -> None:
        """Read the set. A damaged one is empty."""
        try:
            self._ours = set(json.loads(self._path.read_bytes()))
        except (OSError, ValueError):
            self._ours = set()

    def create(self, path: str, limits: Limits) -> None:
        """Make a container's cgroup, and what is missing above it. Raises CgroupError, OSError."""
        missing = set(self._cgroups.missing_ancestors(path)) - self._ours
        if missing:
            self._save(self._ours | missing)
        self._cgroups.create(path, limits)

    def sweep(self) -> None:
        """Remove those of ours that are empty. Raises OSError."""
        left = {path for path in sorted(self._ours, key=len, reverse=True) if not self._remove(path)}
        if left != self._ours:
            self._save(left)

    def _remove(self, path: str) -> bool:
        return not self._cgroups.children(path) and self._cgroups.remove(path)

    def _save(self, ours: set[str]) -> None:
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps(sorted(ours)))
        temporary.rename(self._path)
        self._ours = ours
