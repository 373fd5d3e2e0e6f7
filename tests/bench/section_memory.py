"""Idle memory and processor time of the whole single-node cluster: all its processes, as ``ctl up`` leaves them."""

import os
import time
from pathlib import Path

from bench.cluster import cluster
from bench.processes import naming
from bench.report import Row, Section

NAME = "memory"
SETTLE_S = 10.0
IDLE_S = 10.0
AIM_MIB = 250


def pss_mib(pid: int) -> float:
    """Proportional set size of a process, MiB: shared pages count in parts."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return kib / 1024


def cpu_s(pid: int) -> float:
    """Processor time that a process has used, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(rounds: int, seconds: float) -> Section:
    """Measure. Raises Skip."""
    section = Section(
        NAME,
        "Idle cluster",
        facts=(
            "`ctl up` on one node, no pods, after ten idle seconds. Published figures of peers: k0s 510 MB, k3s "
            f"535 to 565 MB and 6 % of a core with its workload. The aim is under {AIM_MIB} MiB."
        ),
    )
    with cluster() as made:
        time.sleep(SETTLE_S)
        processes = naming(made.state)
        before = {pid: cpu_s(pid) for pid in processes}
        time.sleep(IDLE_S)
        used = sum(cpu_s(pid) - before[pid] for pid in processes)
        sizes = {pid: pss_mib(pid) for pid in processes}
    section.rows.append(Row("all processes, PSS", "MiB", sum(sizes.values()), None, "", False))
    section.rows.append(Row("processor time when idle", "% of a core", used / IDLE_S * 100, None, ""))
    for pid, command in processes.items():
        section.rows.append(Row(short(command), "MiB", sizes[pid], None, ""))
    return section


def short(command: str) -> str:
    """``python -m control kubelet --server ...`` is ``control kubelet``."""
    words = command.split()
    if "-m" not in words:
        return Path(words[-1]).name if words else "?"
    module = words.index("-m") + 1
    return " ".join(word for word in words[module : module + 2] if not word.startswith("-") and "/" not in word)
