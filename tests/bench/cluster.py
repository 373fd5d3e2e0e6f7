"""A whole single-node cluster of ours, for the sections that need one: ``ctl up`` in a folder of its own."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.processes import PYTHON, folder, need_root
from bench.report import Skip

PORT_OFFSET = 21_000
"""Away from a cluster that somebody runs on the default ports."""


@dataclass(frozen=True)
class Cluster:
    """A running cluster and how to talk to it."""

    state: Path

    def command(self, *arguments: str) -> list[str]:
        """The words that run ``ctl`` on it."""
        return [PYTHON, "-m", "ctl", "--state-dir", str(self.state), "--config", str(self.state / "config"), *arguments]

    def ctl(self, *arguments: str, text: str | None = None) -> str:
        """Run ``ctl``; its output. Raises Skip when it fails."""
        done = subprocess.run(self.command(*arguments), input=text, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise Skip(f"ctl {' '.join(arguments[:2])} failed: {said[-1] if said else done.returncode}")
        return done.stdout


@contextmanager
def cluster(*flags: str) -> Iterator[Cluster]:
    """A cluster for the length of the block, ``flags`` go to ``ctl up``. Raises Skip when it does not come up."""
    need_root()
    with folder() as path:
        made = Cluster(path / "state")
        try:
            made.ctl("up", "--port-offset", str(PORT_OFFSET), "--node-name", "bench", *flags)
            yield made
        finally:
            subprocess.run(made.command("down"), capture_output=True)


def pods_manifest(count: int) -> str:
    """Pod objects that no scheduler touches (another scheduler's name), as JSON manifest text."""
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"bench-{number:04d}", "namespace": "default", "labels": {"app": "bench"}},
            "spec": {"schedulerName": "nobody", "containers": [{"name": "main", "image": "bench:1"}]},
        }
        for number in range(count)
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": pods})
