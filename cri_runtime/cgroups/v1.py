"""v1 hierarchies for the controllers, and v2, where it is mounted beside them, for killing."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

from cri_runtime.cgroups.base import CgroupError, Join, Usage
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
from cri_runtime.cgroups.limits import Limits, v1_writes

ALWAYS = ("cpu", "cpuacct", "memory", "pids", "devices")
"""Controllers every container has a cgroup of; cpuset and hugetlb only when they are limited."""

UNLIMITED_BYTES = 1 << 62
"""memory.limit_in_bytes above this says: no limit."""


class V1:
    """See :class:`cri_runtime.cgroups.base.Cgroups`. ``tops``: where each controller is mounted; ``unified``: where
    v2 is, or None."""

    def __init__(self, tops: Mapping[str, Path], unified: Path | None) -> None:
        self._tops = dict(tops)
        self._unified = unified
        self.version = "hybrid" if unified else "v1"

    def missing_ancestors(self, path: str) -> list[str]:
        """See the protocol."""
        tops = [*self._tops.values(), *([self._unified] if self._unified else [])]
        return [above for above in ancestors(path) if not any((top / above[1:]).exists() for top in tops)]

    def create(self, path: str, limits: Limits) -> None:
        """See the protocol."""
        try:
            for controller in self._wanted(limits):
                self._dir(controller, path).mkdir(parents=True, exist_ok=True)
                if controller == "cpuset":
                    self._seed_cpuset(path)
            if self._unified:
                (self._unified / path.strip("/")).mkdir(parents=True, exist_ok=True)
            self._write(path, limits, fresh=True)
        except OSError as err:
            self.remove(path)
            raise err if isinstance(err, CgroupError) else CgroupError(*err.args) from err

    def apply(self, path: str, limits: Limits) -> None:
        """See the protocol."""
        self._write(path, limits, fresh=False)

    def join(self, path: str) -> Join:
        """See the protocol."""
        tasks = tuple(str(directory / "tasks") for directory in self._dirs(path) if directory.exists())
        unified = self._unified / path.strip("/") if self._unified else None
        oom_file = str(self._dir("memory", path) / "memory.oom_control") if "memory" in self._tops else ""
        return Join(tasks, str(unified) if unified else "", oom_file)

    def kill(self, path: str) -> None:
        """See the protocol."""
        switch = self._unified / path.strip("/") / "cgroup.kill" if self._unified else None
        if switch and switch.exists():
            write(switch, "1")
        else:
            self._kill_each(path)

    def pids(self, path: str) -> list[int]:
        """See the protocol."""
        homes = [*self._dirs(path), *([self._unified / path.strip("/")] if self._unified else [])]
        return sorted({int(pid) for home in homes for pid in read(home / "cgroup.procs").split()})

    def remove(self, path: str) -> bool:
        """See the protocol."""
        homes = [*self._dirs(path), *([self._unified / path.strip("/")] if self._unified else [])]
        removed = [remove_tree(home) for home in homes]  # all of them, even after a failure
        return all(removed)

    def children(self, path: str) -> list[str]:
        """See the protocol."""
        return sorted({name for home in self._dirs(path) for name in subdirectory_names(home)})

    def mounts(self) -> list[tuple[str, str, str]]:
        """See the protocol."""
        shown = [c for c in (*ALWAYS, "cpuset") if c in self._tops]
        by_top: dict[Path, list[str]] = {}
        for controller in shown:
            by_top.setdefault(self._tops[controller], []).append(controller)
        mounts = [("cgroup", ",".join(names), top.name) for top, names in by_top.items()]
        return [*mounts, *([("cgroup2", "", "unified")] if self._unified else [])]

    def usage(self, path: str) -> Usage | None:
        """See the protocol."""
        home = self._dir("memory", path)
        if not home.exists():
            return None
        memory = read_table(home / "memory.stat")
        used = read_int(home / "memory.usage_in_bytes") or 0
        limit = read_int(home / "memory.limit_in_bytes") or 0
        with_swap = read_int(home / "memory.memsw.usage_in_bytes")
        return Usage(
            cpu_ns=read_int(self._dir("cpuacct", path) / "cpuacct.usage") or 0,
            memory_bytes=used,
            working_set_bytes=max(used - memory.get("total_inactive_file", 0), 0),
            rss_bytes=memory.get("total_rss", 0),
            page_faults=memory.get("total_pgfault", 0),
            major_page_faults=memory.get("total_pgmajfault", 0),
            memory_limit_bytes=limit if 0 < limit < UNLIMITED_BYTES else None,
            swap_bytes=None if with_swap is None else max(with_swap - used, 0),
            pids=read_int(self._dir("pids", path) / "pids.current") or 0,
        )

    def _wanted(self, limits: Limits) -> list[str]:
        wanted = {*ALWAYS, *(controller for controller, _, _ in v1_writes(limits))}
        return [controller for controller in self._tops if controller in wanted]

    def _dir(self, controller: str, path: str) -> Path:
        return self._tops.get(controller, Path("/nonexistent")) / path.strip("/")

    def _dirs(self, path: str) -> list[Path]:
        return [top / path.strip("/") for top in dict.fromkeys(self._tops.values())]

    def _write(self, path: str, limits: Limits, fresh: bool) -> None:
        writes = [(self._dir(c, path) / name, value) for c, name, value in v1_writes(limits) if c in self._tops]
        writes = [(file, value) for file, value in writes if not _absent_swap(file)]
        if fresh:
            for file, value in writes:
                write(file, value)
        else:
            write_all(_grow_first(writes))

    def _seed_cpuset(self, path: str) -> None:
        """A new v1 cpuset is empty and lets nobody in: inherit, from the top down."""
        top = self._tops["cpuset"]
        parent = top
        for name in path.strip("/").split("/"):
            child = parent / name
            for file in ("cpuset.cpus", "cpuset.mems"):
                if not read(child / file):
                    write(child / file, read(parent / file))
            parent = child

    def _kill_each(self, path: str) -> None:
        """Without cgroup.kill: signal until nobody is left that was not signalled."""
        signalled: set[int] = set()
        while left := set(self.pids(path)) - signalled:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            signalled |= left


def _absent_swap(file: Path) -> bool:
    return file.name.startswith("memory.memsw") and not file.exists()


def _grow_first(writes: list[tuple[Path, str]]) -> list[tuple[Path, str]]:
    """memory must never exceed memory + swap: when memory grows, memory + swap has to grow before it."""
    names = [file.name for file, _ in writes]
    if "memory.memsw.limit_in_bytes" not in names or "memory.limit_in_bytes" not in names:
        return writes
    at = names.index("memory.limit_in_bytes")
    file, value = writes[at]
    if int(value) <= (read_int(file) or 0):
        return writes
    return [*writes[:at], writes[at + 1], writes[at], *writes[at + 2 :]]
