"""Idle memory of the whole single-node cluster: the PSS of all its processes."""

from pathlib import Path


def pss_mib(pid: int) -> float:
    """Proportional set size of a process, MiB: shared pages count in parts."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return kib / 1024
