"""A whole cluster for the tests of this folder: brought up once, in a directory, on ports and networks of its own."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ctl.lab.components import components
from ctl.lab.errors import AddressTaken
from ctl.lab.layout import Layout
from ctl.lab.ports import check_ports
from ctl.lab.settings import Settings, node_address

T = TypeVar("T")
IMAGE = "python:host"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs root and runs alone."""
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.serial)
            item.add_marker(pytest.mark.timeout(180))


class Cluster:
    """A state directory, and ``ctl`` on it."""

    def __init__(self, state_dir: Path, port_offset: int) -> None:
        self.state_dir, self.port_offset = state_dir, port_offset
        self.layout = Layout(state_dir)

    def run(self, *words: str, stdin: str | None = None, timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
        """``ctl words...``, whatever comes of it."""
        return subprocess.run(
            [sys.executable, "-m", "ctl", *words],
            env={**os.environ, "KNARR_STATE_DIR": str(self.state_dir)},
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def ctl(self, *words: str, stdin: str | None = None) -> str:
        """``ctl words...`` must succeed; its standard output."""
        done = self.run(*words, stdin=stdin)
        assert done.returncode == 0, f"ctl {' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def get(self, *words: str) -> Any:
        """``ctl get words... -o json``, decoded."""
        return json.loads(self.ctl("get", *words, "-o", "json"))

    def up(self) -> str:
        """``ctl up`` on this cluster's ports."""
        return self.ctl("up", f"--port-offset={self.port_offset}")

    def pid(self, component: str) -> int:
        """Who runs as ``component``."""
        return int(json.loads(self.layout.pid_file(component).read_text())["pid"])


def until(look: Callable[[], T | None], what: str, deadline_s: float = 60) -> T:
    """Look until there is something to see."""
    ends = time.monotonic() + deadline_s
    while (seen := look()) is None:
        assert time.monotonic() < ends, f"not within {deadline_s} s: {what}"
        time.sleep(0.2)
    return seen


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """``until``, for tests."""
    return until


def free_offset(state_dir: Path) -> int:
    """A port offset that nobody uses, different in each run of the tests."""
    for number in range(60):
        offset = 11000 + (os.getpid() + number) % 60 * 200
        try:
            check_ports(components(Layout(state_dir), Settings("probe", node_address(), offset)))
            return offset
        except AddressTaken:
            continue
    pytest.fail("no port offset is free")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster that is up, with a Python image on its node; taken down and removed afterwards."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    state_dir = Path(tempfile.mkdtemp(prefix="knarr-e2e-", dir="/tmp"))
    state_dir.chmod(0o755)
    made = Cluster(state_dir, free_offset(state_dir))
    try:
        made.up()
        made.ctl("image", "from-host", "python3", "--tag", IMAGE)
        yield made
    finally:
        done = made.run("down", "--purge")
        shutil.rmtree(state_dir, ignore_errors=True)
        assert done.returncode == 0, done.stdout + done.stderr
