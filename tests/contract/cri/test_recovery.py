"""Crash-only: whatever is killed, the next start finds the truth and leaves nothing too much."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from protos.cri import runtime_pb2 as cri

pytestmark = pytest.mark.root


def supervisor_of(runtime: Any, sandbox_id: str) -> int:
    request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id, verbose=True)
    pid: int = json.loads(runtime.cri.PodSandboxStatus(request).info["info"])["pid"]
    return pid


def test_pods_outlive_the_daemon_and_exits_meanwhile_are_known(mortal: Any) -> None:
    sandbox = mortal.run_sandbox()
    ticking = mortal.run(sandbox, "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done", name="ticking")
    ending = mortal.run(sandbox, "sh", "-c", "while [ ! -e /dev/shm/end ]; do sleep 0.02; done; exit 9", name="ending")
    waiting = mortal.create(sandbox, mortal.container_config("sleep", "1000", name="waiting"))
    request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox[0])
    address = mortal.cri.PodSandboxStatus(request).status.network.ip
    before = mortal.status(ticking)
    log = Path(before.log_path)
    mortal.kill()
    size = log.stat().st_size
    (mortal.base / "state" / "pods" / sandbox[0] / "shm" / "end").touch()
    home = mortal.base / "root" / "containers" / ending
    mortal.wait_for(lambda: '"exited"' in (home / "status.json").read_text(), "exit record")
    mortal.wait_for(lambda: log.stat().st_size > size, "log growth without the daemon")
    mortal.start()
    assert mortal.status(ticking) == before
    assert mortal.exited(ending).exit_code == 9
    assert mortal.status(waiting).state == cri.CONTAINER_CREATED
    assert mortal.cri.PodSandboxStatus(request).status.network.ip == address
    assert mortal.sh(ticking, "echo still here") == "still here"
    mortal.start_container(waiting)
    assert mortal.status(waiting).state == cri.CONTAINER_RUNNING
    numbers = [int(line.split()[3]) for line in log.read_text().splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))
    other = mortal.run_sandbox()
    assert (
        mortal.cri.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=other[0])).status.network.ip != address
    )


def test_a_dead_supervisor_takes_its_pod_along(mortal: Any) -> None:
    sandbox = mortal.run_sandbox()
    container = mortal.run(sandbox)
    os.kill(supervisor_of(mortal, sandbox[0]), signal.SIGKILL)
    status = mortal.exited(container)
    assert (status.exit_code, status.reason) == (255, "Unknown")
    request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox[0])
    assert mortal.cri.PodSandboxStatus(request).status.state == cri.SANDBOX_NOTREADY
    healthy = mortal.run(mortal.run_sandbox())
    assert mortal.sh(healthy, "echo fine") == "fine"


def test_a_supervisor_that_dies_while_the_daemon_is_down(mortal: Any) -> None:
    sandbox = mortal.run_sandbox()
    container = mortal.run(sandbox)
    created = mortal.create(sandbox, mortal.container_config("true", name="created"))
    pid = supervisor_of(mortal, sandbox[0])
    mortal.kill()
    os.kill(pid, signal.SIGKILL)
    mortal.start()
    assert mortal.exited(container).reason == "Unknown"
    assert mortal.status(created).state == cri.CONTAINER_CREATED
    request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox[0])
    assert mortal.cri.PodSandboxStatus(request).status.state == cri.SANDBOX_NOTREADY


def test_a_killed_init_is_an_exit(mortal: Any) -> None:
    container = mortal.run(mortal.run_sandbox())
    info = mortal.cri.ContainerStatus(cri.ContainerStatusRequest(container_id=container, verbose=True)).info["info"]
    os.kill(json.loads(info)["pid"], signal.SIGKILL)
    status = mortal.exited(container)
    assert (status.exit_code, status.reason) == (137, "Error")


def test_a_dead_zygote_is_replaced(mortal: Any) -> None:
    mortal.run_sandbox()
    children = Path(f"/proc/{mortal.process.pid}/task/{mortal.process.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    last = None
    for _ in range(2):  # the first may still meet the dying one
        try:
            last = mortal.run_sandbox()
        except Exception:
            continue
    assert last is not None


def test_half_made_things_are_discarded(mortal: Any) -> None:
    sandbox = mortal.run_sandbox()
    container = mortal.create(sandbox, mortal.container_config("true"))
    unannounced = mortal.run_sandbox()
    mortal.kill()
    (mortal.base / "root" / "containers" / container / "spec.json").unlink()  # killed between record and spec
    (mortal.base / "root" / "containers" / ("f" * 64) / "upper").mkdir(parents=True)  # killed before the record
    (mortal.base / "root" / "records" / "sandboxes" / f"{unannounced[0]}.json").unlink()  # killed before the record
    (mortal.base / "root" / "records" / "containers" / "torn.json").write_text('{"id": "to')
    mortal.start()
    assert [item.id for item in mortal.cri.ListPodSandbox(cri.ListPodSandboxRequest()).items] == [sandbox[0]]
    assert not mortal.cri.ListContainers(cri.ListContainersRequest()).containers
    mortal.create(sandbox, mortal.container_config("true"))  # neither name is reserved
    mortal.run_sandbox(unannounced[1])


def test_sigterm_exits_0_and_leaves_pods_running(mortal: Any) -> None:
    container = mortal.run(mortal.run_sandbox())
    assert mortal.stop() == 0
    mortal.start()
    assert mortal.status(container).state == cri.CONTAINER_RUNNING


def test_a_second_daemon_on_the_same_root_is_refused(mortal: Any) -> None:
    command = [
        *(sys.executable, "-m", "cri_runtime", "--root", str(mortal.base / "root")),
        *("--state", str(mortal.base / "state2"), "--listen", f"unix://{mortal.base}/run/second.sock"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: another cri_runtime works on") and "Traceback" not in result.stderr


def test_the_socket_is_private(mortal: Any) -> None:
    assert (mortal.base / "run" / "cri.sock").stat().st_mode & 0o777 == 0o600


def test_a_dead_pause_process_ends_its_pod(mortal: Any) -> None:
    sandbox = mortal.run_sandbox()
    container = mortal.run(sandbox)
    supervisor = supervisor_of(mortal, sandbox[0])
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    (pause,) = [int(pid) for pid in children if Path(f"/proc/{pid}/cmdline").read_text().startswith("pause")]
    os.kill(pause, signal.SIGKILL)
    assert mortal.exited(container).exit_code == 137
    request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox[0])

    def over() -> bool:
        return bool(mortal.cri.PodSandboxStatus(request).status.state == cri.SANDBOX_NOTREADY)

    mortal.wait_for(over, "end of the pod")
