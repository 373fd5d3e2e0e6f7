"""``ctl get pods`` against ``kubectl get pods`` on the same cluster: start-up, one list, one table."""

import shutil
import subprocess
import time

from bench.cluster import cluster, pods_manifest
from bench.report import Row, Section, Skip, median, quantile

NAME = "ctl"
PODS = 100
RUNS_PER_ROUND = 5


def run(rounds: int, seconds: float) -> Section:
    """Measure. Raises Skip."""
    section = Section(
        NAME,
        "Command line",
        facts=(
            f"`get pods` with {PODS} pods, from start to exit. kubectl needs the REST gateway, which is not built yet, "
            "so the only figure of it is the time in which it starts and says its version, without any request."
        ),
    )
    with cluster() as made:
        made.ctl("create", "-f", "-", text=pods_manifest(PODS))
        times = [_once(made.command("get", "pods")) for _ in range(rounds * RUNS_PER_ROUND)]
    kubectl = median([_version() for _ in range(RUNS_PER_ROUND)]) if shutil.which("kubectl") else None
    note = "no kubectl" if kubectl is None else f"kubectl version --client: {kubectl:.3g}"
    for label, value in (("p50", median(times)), ("p99", quantile(times, 0.99))):
        section.rows.append(Row(f"get pods, {label}", "ms", value, None, "kubectl", False, note))
    return section


def _version() -> float:
    start = time.perf_counter()
    subprocess.run(["kubectl", "version", "--client"], capture_output=True)
    return (time.perf_counter() - start) * 1e3


def _once(command: list[str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    took = (time.perf_counter() - start) * 1e3
    if done.returncode or done.stdout.count("bench-") != PODS:
        raise Skip(f"get pods gave {done.stdout.count('bench-')} of {PODS} pods: {done.stderr.strip()}")
    return took
