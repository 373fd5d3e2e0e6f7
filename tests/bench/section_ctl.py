"""``ctl get pods`` against ``kubectl get pods`` on the same cluster: start-up, one list, one table."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench.cluster import Cluster, cluster, pods_manifest
from bench.report import Row, Section, Skip, median, quantile

NAME = "ctl"
PODS = 100
RUNS_PER_ROUND = 7


def run(rounds: int, seconds: float) -> Section:
    """Measure. Raises Skip."""
    section = Section(
        NAME,
        "Command line",
        facts=(
            f"`get pods` with {PODS} pods, from start to exit, taking turns on one cluster of `ctl up --rest`: ctl "
            "speaks gRPC to it, kubectl HTTP, with its discovery cache warm. `--help` asks nothing of a cluster."
        ),
    )
    kubectl = _kubectl()
    with cluster("--rest") as made:
        made.ctl("create", "-f", "-", text=pods_manifest(PODS))
        commands = _commands(made, kubectl)
        for command in commands.values():
            _once(command)  # caches: bytecode, discovery, files
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds * RUNS_PER_ROUND):
            for name, command in commands.items():
                times[name].append(_once(command))
    for what, label in (("get", "get pods"), ("help", "--help")):
        ours, theirs = times[f"ctl {what}"], times.get(f"kubectl {what}", [])
        section.rows.append(_row(f"{label}, p50", median(ours), median(theirs) if theirs else None))
        section.rows.append(_row(f"{label}, p99", quantile(ours, 0.99), quantile(theirs, 0.99) if theirs else None))
    return section


def _row(label: str, ours: float, theirs: float | None) -> Row:
    return Row(label, "ms", ours, theirs, "kubectl", False, "" if theirs else "no kubectl")


def _kubectl() -> str | None:
    """The one installed beside this Python (the ``test`` extra) before any other."""
    beside = Path(sys.executable).with_name("kubectl")
    return str(beside) if beside.exists() else shutil.which("kubectl")


def _commands(made: Cluster, kubectl: str | None) -> dict[str, list[str]]:
    commands = {"ctl get": made.command("get", "pods"), "ctl help": made.command("--help")}
    if kubectl:
        config, cache = made.state / "kubeconfig", made.state / "kubectl-cache"
        commands["kubectl get"] = [kubectl, f"--kubeconfig={config}", f"--cache-dir={cache}", "get", "pods"]
        commands["kubectl help"] = [kubectl, "--help"]
    return commands


def _once(command: list[str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    took = (time.perf_counter() - start) * 1e3
    shown = done.stdout.count("bench-")
    if done.returncode or (command[-1] == "pods" and shown != PODS):
        raise Skip(f"{Path(command[0]).name} get pods gave {shown} of {PODS} pods: {done.stderr.strip()}")
    return took
