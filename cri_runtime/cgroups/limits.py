"""Pure: what a container may use, and the files and values that say so in each version of cgroups.

Zero and empty mean: not limited here. Formulas: kernel, Documentation/admin-guide/cgroup-v{1,2}; youki, ``libcgroups``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

CPU_PERIOD_US = 100_000


@dataclass(frozen=True)
class DeviceRule:
    """Devices a container may use: kind ``c`` or ``b``, numbers (None: all), access out of ``rwm``."""

    kind: str
    major: int | None
    minor: int | None
    access: str

    def __str__(self) -> str:
        numbers = ["*" if number is None else str(number) for number in (self.major, self.minor)]
        return f"{self.kind} {':'.join(numbers)} {self.access}"


@dataclass(frozen=True)
class Limits:
    """Limits of one cgroup. ``devices`` None: all devices."""

    cpu_shares: int = 0
    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    memory_bytes: int = 0
    swap_bytes: int = 0
    """Memory and swap together, as CRI has it."""
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids: int = 0
    hugepage_bytes: Mapping[str, int] = field(default_factory=dict)
    """By page size as in file names: ``2MB``."""
    unified: Mapping[str, str] = field(default_factory=dict)
    """Files of v2 and their values, verbatim."""
    devices: tuple[DeviceRule, ...] | None = None

    def merged(self, change: "Limits") -> "Limits":
        """These limits with what ``change`` sets; its zero fields leave things as they are."""
        given = {f.name: getattr(change, f.name) for f in fields(change) if getattr(change, f.name)}
        return replace(self, **given)


def weight_of(shares: int) -> int:
    """v2's cpu.weight (1 to 10000) for v1's cpu.shares (2 to 262144)."""
    return 1 + (min(max(shares, 2), 262_144) - 2) * 9_999 // 262_142


Writes = list[tuple[str, str, str]]
"""(controller, file, value), in an order that works when limits shrink."""


def v1_writes(limits: Limits) -> Writes:
    """The writes that put ``limits`` into v1 hierarchies."""
    writes: Writes = []
    if limits.cpu_shares:
        writes.append(("cpu", "cpu.shares", str(max(limits.cpu_shares, 2))))
    if limits.cpu_quota_us:
        writes.append(("cpu", "cpu.cfs_period_us", str(limits.cpu_period_us or CPU_PERIOD_US)))
        writes.append(("cpu", "cpu.cfs_quota_us", str(limits.cpu_quota_us)))
    if limits.memory_bytes:
        writes.append(("memory", "memory.limit_in_bytes", str(limits.memory_bytes)))
    if limits.swap_bytes:
        writes.append(("memory", "memory.memsw.limit_in_bytes", str(limits.swap_bytes)))
    if limits.cpuset_cpus:
        writes.append(("cpuset", "cpuset.cpus", limits.cpuset_cpus))
    if limits.cpuset_mems:
        writes.append(("cpuset", "cpuset.mems", limits.cpuset_mems))
    pids = str(limits.pids or limits.unified.get("pids.max", ""))
    if pids:
        writes.append(("pids", "pids.max", pids))
    for size, limit in limits.hugepage_bytes.items():
        writes.append(("hugetlb", f"hugetlb.{size}.limit_in_bytes", str(limit)))
    if limits.devices is not None:
        writes.append(("devices", "devices.deny", "a"))
        writes += [("devices", "devices.allow", str(rule)) for rule in limits.devices]
    return writes


def v2_writes(limits: Limits) -> Writes:
    """The writes that put ``limits`` into the unified hierarchy; devices are a program there, not a file."""
    writes: Writes = []
    if limits.cpu_shares:
        writes.append(("cpu", "cpu.weight", str(weight_of(limits.cpu_shares))))
    if limits.cpu_quota_us:
        quota = "max" if limits.cpu_quota_us < 0 else str(limits.cpu_quota_us)
        writes.append(("cpu", "cpu.max", f"{quota} {limits.cpu_period_us or CPU_PERIOD_US}"))
    if limits.memory_bytes:
        writes.append(("memory", "memory.max", _or_max(limits.memory_bytes)))
    if limits.swap_bytes:
        swap = limits.swap_bytes - limits.memory_bytes if limits.swap_bytes > 0 else -1
        writes.append(("memory", "memory.swap.max", _or_max(swap)))
    if limits.cpuset_cpus:
        writes.append(("cpuset", "cpuset.cpus", limits.cpuset_cpus))
    if limits.cpuset_mems:
        writes.append(("cpuset", "cpuset.mems", limits.cpuset_mems))
    if limits.pids:
        writes.append(("pids", "pids.max", str(limits.pids)))
    for size, limit in limits.hugepage_bytes.items():
        writes.append(("hugetlb", f"hugetlb.{size}.max", str(limit)))
    writes += [(name.split(".")[0], name, value) for name, value in limits.unified.items()]
    return writes


def _or_max(value: int) -> str:
    return "max" if value < 0 else str(value)
