"""This host's cgroups: made, limited, measured, killed, removed."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cri_runtime.cgroups import Limits, detect
from cri_runtime.cgroups.base import CgroupError, Cgroups

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def cgroups() -> Cgroups:
    return detect()


@pytest.fixture
def path(cgroups: Cgroups) -> Iterator[str]:
    parent = f"/knarr-test-{secrets.token_hex(4)}"
    yield f"{parent}/pod/c"
    cgroups.kill(f"{parent}/pod/c")
    assert cgroups.remove(parent)


def enter(cgroups: Cgroups, path: str) -> subprocess.Popen[bytes]:
    join = cgroups.join(path)
    files = join.tasks or (f"{join.directory}/cgroup.procs",)

    def move() -> None:
        for file in files:
            Path(file).write_text("0")
        if join.directory and join.tasks:
            Path(join.directory, "cgroup.procs").write_text("0")

    return subprocess.Popen(["sleep", "1000"], preexec_fn=move)


def test_a_cgroup_lives_and_goes(cgroups: Cgroups, path: str) -> None:
    parent = path.split("/")[1]
    assert cgroups.missing_ancestors(path) == [f"/{parent}", f"/{parent}/pod"]
    cgroups.create(path, Limits(memory_bytes=64 << 20, pids=50, cpu_shares=100))
    assert cgroups.missing_ancestors(path) == []
    process = enter(cgroups, path)
    assert cgroups.pids(path) == [process.pid]
    usage = cgroups.usage(path)
    assert usage and usage.pids == 1 and usage.memory_limit_bytes == 64 << 20
    assert not cgroups.remove(path)
    cgroups.kill(path)
    assert process.wait(10) == -9
    assert cgroups.remove(path) and cgroups.remove(path)
    assert cgroups.usage(path) is None and cgroups.pids(path) == []
    assert cgroups.children(f"/{parent}") == ["pod"]


def test_a_refused_limit_leaves_no_cgroup(cgroups: Cgroups, path: str) -> None:
    with pytest.raises(CgroupError, match="4000"):
        cgroups.create(path, Limits(cpuset_cpus="4000"))
    assert cgroups.usage(path) is None


def test_a_change_happens_whole_or_not(cgroups: Cgroups, path: str) -> None:
    cgroups.create(path, Limits(memory_bytes=64 << 20, cpuset_cpus="0"))
    with pytest.raises(CgroupError):
        cgroups.apply(path, Limits(memory_bytes=32 << 20, cpuset_cpus="4000"))
    usage = cgroups.usage(path)
    assert usage and usage.memory_limit_bytes == 64 << 20
    cgroups.apply(path, Limits(memory_bytes=96 << 20))
    usage = cgroups.usage(path)
    assert usage and usage.memory_limit_bytes == 96 << 20
