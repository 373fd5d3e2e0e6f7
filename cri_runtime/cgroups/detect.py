"""Which cgroups this host has."""

from pathlib import Path

from cri_runtime.cgroups.base import CgroupError, Cgroups
from cri_runtime.cgroups.v1 import V1
from cri_runtime.cgroups.v2 import V2

V1_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "pids", "hugetlb")


def detect(mountinfo: Path = Path("/proc/self/mountinfo")) -> Cgroups:
    """The host's cgroups, by what is mounted. Raises CgroupError when nothing usable is."""
    tops, unified = parse(mountinfo.read_text())
    if "memory" in tops:
        return V1(tops, unified)
    if unified:
        return V2(unified)
    raise CgroupError("no cgroups are mounted: mount cgroup2 on /sys/fs/cgroup")


def parse(mountinfo: str) -> tuple[dict[str, Path], Path | None]:
    """Where each v1 controller is mounted, and where v2 is. Source: proc(5), mountinfo."""
    tops: dict[str, Path] = {}
    unified: Path | None = None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        where = Path(before.split()[4].replace("\\040", " "))
        fstype, _, options = after.split()[:3]
        if fstype == "cgroup2":
            unified = unified or where
        elif fstype == "cgroup":
            for controller in V1_CONTROLLERS:
                if controller in options.split(","):
                    tops.setdefault(controller, where)
    return tops, unified
