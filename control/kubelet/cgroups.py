"""The pod's cgroup after the pod: runtimes make it on the way to a container's, nobody but the kubelet takes it away.

Only empty directories are removed (rmdir), so a cgroup that is still used, or that somebody else's pod uses, stays.
"""

from collections.abc import Iterable
from pathlib import Path


def hierarchies(mounts: Path = Path("/proc/self/mounts")) -> list[Path]:
    """The mount points of every cgroup hierarchy, v1 and v2."""
    found = (line.split() for line in mounts.read_text().splitlines())
    return [Path(fields[1]) for fields in found if len(fields) > 2 and fields[2] in ("cgroup", "cgroup2")]


def remove(parent: str, roots: Iterable[Path]) -> None:
    """Remove cgroup ``parent`` (``/kubepods/burstable/pod...``) below every root, with empty children and empty
    ancestors.
    """
    for root in roots:
        directory = root / parent.lstrip("/")
        if directory.is_dir():
            for child in sorted((entry for entry in directory.rglob("*") if entry.is_dir()), reverse=True):
                _rmdir(child)
        while directory != root and (not directory.exists() or _rmdir(directory)):
            directory = directory.parent


def _rmdir(directory: Path) -> bool:
    try:
        directory.rmdir()
    except OSError:
        return False
    return True
