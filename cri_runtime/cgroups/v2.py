"""The unified hierarchy."""

from pathlib import Path

from cri_runtime.cgroups.base import CgroupError, Join, Usage
from cri_runtime.cgroups.devices import restrict
from cri_runtime.cgroups.files import (
    ancestors,
    read,
    read_int,
    read_table,
    remove_tree,
    subdirectory_names,
    write,
    write_all,
)
from cri_runtime.cgroups.limits import Limits, v2_writes

CONTROLLERS = ("cpu", "memory", "pids", "cpuset", "hugetlb", "io")


class V2:
    """See :class:`cri_runtime.cgroups.base.Cgroups`; ``top`` is where cgroup2 is mounted."""

    version = "v2"

    def __init__(self, top: Path) -> None:
        self._top = top

    def missing_ancestors(self, path: str) -> list[str]:
        """See the protocol."""
        return [above for above in ancestors(path) if not self._dir(above).exists()]

    def create(self, path: str, limits: Limits) -> None:
        """See the protocol."""
        try:
            self._dir(path).mkdir(parents=True, exist_ok=True)
            self._delegate(path)
            self.apply(path, limits)
        except OSError as err:
            self.remove(path)
            raise err if isinstance(err, CgroupError) else CgroupError(*err.args) from err

    def apply(self, path: str, limits: Limits) -> None:
        """See the protocol."""
        directory = self._dir(path)
        write_all([(directory / name, value) for _, name, value in v2_writes(limits)])
        if limits.devices is not None:
            restrict(directory, limits.devices)

    def join(self, path: str) -> Join:
        """See the protocol."""
        directory = self._dir(path)
        return Join((), str(directory), str(directory / "memory.events"))

    def kill(self, path: str) -> None:
        """See the protocol."""
        if (self._dir(path) / "cgroup.kill").exists():
            write(self._dir(path) / "cgroup.kill", "1")

    def pids(self, path: str) -> list[int]:
        """See the protocol."""
        return [int(pid) for pid in read(self._dir(path) / "cgroup.procs").split()]

    def remove(self, path: str) -> bool:
        """See the protocol."""
        return remove_tree(self._dir(path))

    def children(self, path: str) -> list[str]:
        """See the protocol."""
        return subdirectory_names(self._dir(path))

    def mounts(self) -> list[tuple[str, str, str]]:
        """See the protocol."""
        return [("cgroup2", "", "")]

    def usage(self, path: str) -> Usage | None:
        """See the protocol."""
        directory = self._dir(path)
        if not directory.exists():
            return None
        memory = read_table(directory / "memory.stat")
        used = read_int(directory / "memory.current") or 0
        return Usage(
            cpu_ns=read_table(directory / "cpu.stat").get("usage_usec", 0) * 1000,
            memory_bytes=used,
            working_set_bytes=max(used - memory.get("inactive_file", 0), 0),
            rss_bytes=memory.get("anon", 0),
            page_faults=memory.get("pgfault", 0),
            major_page_faults=memory.get("pgmajfault", 0),
            memory_limit_bytes=read_int(directory / "memory.max"),
            swap_bytes=read_int(directory / "memory.swap.current"),
            pids=read_int(directory / "pids.current") or len(self.pids(path)),
        )

    def _dir(self, path: str) -> Path:
        return self._top / path.strip("/")

    def _delegate(self, path: str) -> None:
        """Let every ancestor hand its controllers down; a controller that one lacks is not wanted below."""
        directory = self._top
        for name in path.strip("/").split("/"):
            have = set(read(directory / "cgroup.controllers").split()) & set(CONTROLLERS)
            missing = have - set(read(directory / "cgroup.subtree_control").split())
            if missing:
                write(directory / "cgroup.subtree_control", " ".join(f"+{c}" for c in sorted(missing)))
            directory = directory / name
