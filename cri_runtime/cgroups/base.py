"""What the runtime asks of control groups, whichever version the host has."""

from dataclasses import dataclass
from typing import Protocol

from cri_runtime.cgroups.limits import Limits


class CgroupError(OSError):
    """A cgroup could not be made, changed or removed; the text names the file and the value."""


@dataclass(frozen=True)
class Usage:
    """What a cgroup has used. Times in nanoseconds, sizes in bytes; None: this host does not say."""

    cpu_ns: int = 0
    memory_bytes: int = 0
    working_set_bytes: int = 0
    rss_bytes: int = 0
    page_faults: int = 0
    major_page_faults: int = 0
    memory_limit_bytes: int | None = None
    swap_bytes: int | None = None
    pids: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.cpu_ns + other.cpu_ns,
            self.memory_bytes + other.memory_bytes,
            self.working_set_bytes + other.working_set_bytes,
            self.rss_bytes + other.rss_bytes,
            self.page_faults + other.page_faults,
            self.major_page_faults + other.major_page_faults,
            None,
            (self.swap_bytes or 0) + (other.swap_bytes or 0),
            self.pids + other.pids,
        )


@dataclass(frozen=True)
class Join:
    """How a new process gets into a cgroup; travels to the shim."""

    tasks: tuple[str, ...]
    """v1 files that take "0" from the process itself: one thread that moves itself waits for no grace period."""
    directory: str
    """The v2 directory for CLONE_INTO_CGROUP; empty without v2."""
    oom_file: str
    """File with a line ``oom_kill <count>``; empty when the host has none."""


class Cgroups(Protocol):
    """Cgroups by path below the root of the hierarchies, such as ``/knarr/3f2a``. Calls are quick, and idempotent."""

    version: str
    """"v2", "v1" or "hybrid"."""

    def missing_ancestors(self, path: str) -> list[str]:
        """Which cgroups above ``path`` :meth:`create` would have to make, outermost first."""

    def create(self, path: str, limits: Limits) -> None:
        """Make the cgroup and what is missing above it, with ``limits``. Raises CgroupError; ancestors may remain."""

    def apply(self, path: str, limits: Limits) -> None:
        """Change limits, all or nothing. Raises CgroupError."""

    def join(self, path: str) -> Join:
        """How a process enters the cgroup."""

    def kill(self, path: str) -> None:
        """SIGKILL all its processes; they end soon after."""

    def pids(self, path: str) -> list[int]:
        """Its processes, without those of cgroups below."""

    def remove(self, path: str) -> bool:
        """Remove it, with empty cgroups below. False when something in it still lives. Absent is True."""

    def usage(self, path: str) -> Usage | None:
        """What it used; None when it is gone."""

    def children(self, path: str) -> list[str]:
        """Names of the cgroups directly below."""

    def mounts(self) -> list[tuple[str, str, str]]:
        """What a container's ``/sys/fs/cgroup`` needs: (file system type, data, directory below it)."""
