"""The demo is the test of the main job: its own checks, ten steps of them, and its proof that nothing is left."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.serial, pytest.mark.timeout(400)]


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """A short path, because sockets lie below it."""
    directory = Path(tempfile.mkdtemp(prefix="knarr-demo-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_demo_succeeds_and_leaves_nothing(state_dir: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ctl", "--state-dir", str(state_dir), "demo"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=380,
    )
    assert done.returncode == 0, done.stdout
    assert "All 10 steps passed" in done.stdout
    assert f"nothing is left outside {state_dir}" in done.stdout
    assert not state_dir.exists()
