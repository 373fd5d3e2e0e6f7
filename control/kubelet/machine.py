"""What this machine is and has, read from /proc and friends. Facts only; ``nodestatus`` makes a Node of them."""

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """The facts of one machine that do not change while it runs."""

    cpus: int
    memory_bytes: int
    storage_bytes: int
    hostname: str
    machine_id: str
    boot_id: str
    kernel: str
    os_image: str
    architecture: str


@dataclass(frozen=True)
class Pressure:
    """What is left of scarce things right now."""

    memory_available_bytes: int
    storage_available_share: float
    pids_free: int


ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def read_machine(storage: Path) -> Machine:
    """Read the facts; ``storage`` is a directory on the file system that pods live on."""
    disk = os.statvfs(storage)
    return Machine(
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=_meminfo()["MemTotal"],
        storage_bytes=disk.f_blocks * disk.f_frsize,
        hostname=platform.node(),
        machine_id=_text("/etc/machine-id") or _text("/var/lib/dbus/machine-id"),
        boot_id=_text("/proc/sys/kernel/random/boot_id"),
        kernel=platform.release(),
        os_image=_os_image(),
        architecture=ARCHITECTURES.get(platform.machine(), platform.machine()),
    )


def read_pressure(storage: Path) -> Pressure:
    """Read what is left."""
    disk = os.statvfs(storage)
    threads = int(_text("/proc/loadavg").split()[3].partition("/")[2])
    limit = int(_text("/proc/sys/kernel/pid_max"))
    return Pressure(
        memory_available_bytes=_meminfo().get("MemAvailable", 0),
        storage_available_share=disk.f_bavail / max(disk.f_blocks, 1),
        pids_free=limit - threads,
    )


@dataclass(frozen=True)
class CpuTimes:
    """Busy time of all CPUs together since boot, nanoseconds, and when it was read."""

    busy_ns: int
    at_ns: int


def read_cpu() -> CpuTimes:
    """CPU time used since boot: /proc/stat without idle and iowait."""
    fields = [int(word) for word in _text("/proc/stat").splitlines()[0].split()[1:9]]
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return CpuTimes((sum(fields) - fields[3] - fields[4]) * tick_ns, time.time_ns())


def memory_used_bytes() -> int:
    """Memory that is not available to new work, bytes."""
    info = _meminfo()
    return info["MemTotal"] - info.get("MemAvailable", 0)


def _meminfo() -> dict[str, int]:
    lines = (line.split() for line in _text("/proc/meminfo").splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) > 2}


def _os_image() -> str:
    for line in _text("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return platform.system()


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
