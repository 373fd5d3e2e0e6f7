"""A cluster's life: components killed, the whole taken down and brought up again."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctl.lab.settings import read_settings

COMPONENTS = ("store", "apiserver", "scheduler", "controllers", "kubelet", "cri_runtime", "proxy", "registry")


@pytest.mark.parametrize("component", COMPONENTS)
def test_up_starts_again_only_what_was_killed(cluster: Any, component: str) -> None:
    before = {name: cluster.pid(name) for name in COMPONENTS}
    os.kill(before[component], signal.SIGKILL)
    text = cluster.up()
    after = {name: cluster.pid(name) for name in COMPONENTS}
    assert {name for name in COMPONENTS if after[name] != before[name]} == {component}
    assert f"{component} is up" in text
    assert cluster.run("status").returncode == 0


def test_everything_killed_at_once_comes_back_with_its_pods(cluster: Any, eventually: Callable[..., Any]) -> None:
    sleep = "import signal; signal.signal(15, lambda *a: exit()); signal.pause()"
    cluster.ctl(
        "run", "keep", "--image=python:host", "--image-pull-policy=Never", "--command", "--", "python3", "-c", sleep
    )
    cluster.ctl("wait", "rc/keep", "--for=jsonpath={.status.readyReplicas}=1", "--timeout=60s")
    before = cluster.get("pods", "-l", "run=keep")["items"][0]
    for name in COMPONENTS:
        os.kill(cluster.pid(name), signal.SIGKILL)
    cluster.up()
    after = cluster.get("pods", "-l", "run=keep")["items"][0]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0
    container = before["status"]["containerStatuses"][0]["containerID"]
    assert after["status"]["containerStatuses"][0]["containerID"] == container
    cluster.ctl("wait", "rc/keep", "--for=jsonpath={.status.readyReplicas}=1", "--timeout=60s")


def test_objects_and_images_are_there_again_after_down_and_up(cluster: Any, eventually: Callable[..., Any]) -> None:
    cluster.ctl("create", "configmap", "kept", "--from-literal=a=b")
    settings = read_settings(cluster.layout)
    assert "the state stays" in cluster.ctl("down")
    assert "nothing is running" in cluster.ctl("down")
    assert not Path("/sys/class/net", settings.bridge).exists()
    mounts = Path("/proc/self/mountinfo").read_text()
    assert str(cluster.state_dir) not in mounts
    cluster.up()
    assert cluster.get("configmap", "kept")["data"] == {"a": "b"}
    assert "python" in cluster.ctl("image", "ls")
    cluster.ctl("wait", "rc/keep", "--for=jsonpath={.status.readyReplicas}=1", "--timeout=60s")
    cluster.ctl("delete", "rc", "keep")


def test_down_removes_pods_whose_cluster_was_killed(cluster: Any) -> None:
    sleep = "import signal; signal.pause()"
    image = ["--image=python:host", "--image-pull-policy=Never"]
    cluster.ctl("run", "orphan", *image, "--restart=Never", "--command", "--", "python3", "-c", sleep)
    cluster.ctl("wait", "pod/orphan", "--for=condition=Ready", "--timeout=60s")
    settings = read_settings(cluster.layout)
    for name in COMPONENTS:
        os.kill(cluster.pid(name), signal.SIGKILL)
    assert "removed 1 pod" in cluster.ctl("down")
    assert not Path("/sys/class/net", settings.bridge).exists()
    assert str(cluster.state_dir) not in Path("/proc/self/mountinfo").read_text()
    routes = subprocess.run(["ip", "route", "show", "table", "local"], capture_output=True, text=True, check=True)
    assert settings.service_cidr not in routes.stdout
    assert not cluster.layout.run.exists()
    cluster.up()
    cluster.ctl("delete", "pod", "orphan", "--now")


def test_a_component_that_cannot_start_is_named_with_its_log_and_nothing_stays(cluster: Any) -> None:
    cluster.ctl("down")
    wal = cluster.state_dir / "store"
    kept = wal.rename(cluster.state_dir / "store.kept")
    wal.write_text("in the way")
    try:
        done = cluster.run("up", f"--port-offset={cluster.port_offset}")
        assert done.returncode == 1
        assert "store ended with exit code 1" in done.stderr and "logs/store.log" in done.stderr
        assert cluster.run("status").stdout.count("Stopped") == 8
    finally:
        wal.unlink()
        kept.rename(wal)
    cluster.up()
