"""An apiserver with its REST gateway as a process of its own, on a real etcd, and kubectl."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

START_S = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def workdir() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="kct-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def kubectl_path() -> str:
    found = os.environ.get("KUBECTL") or shutil.which("kubectl")
    if not found:
        pytest.skip("kubectl is not installed: set KUBECTL to its path")
    return found


@pytest.fixture(scope="module")
def rest_url(workdir: Path) -> Iterator[str]:
    """The address of the gateway."""
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed (Debian package etcd-server)")
    client, peer, grpc, rest = (free_port() for _ in range(4))
    etcd = [
        "etcd",
        "--name",
        "default",
        "--data-dir",
        str(workdir / "etcd"),
        "--listen-client-urls",
        f"http://127.0.0.1:{client}",
        "--advertise-client-urls",
        f"http://127.0.0.1:{client}",
        "--listen-peer-urls",
        f"http://127.0.0.1:{peer}",
        "--initial-advertise-peer-urls",
        f"http://127.0.0.1:{peer}",
        "--initial-cluster",
        f"default=http://127.0.0.1:{peer}",
        "--heartbeat-interval",
        "10",
        "--election-timeout",
        "60",
    ]
    server = [
        sys.executable,
        "-m",
        "control",
        "apiserver",
        "--store-endpoints",
        f"http://127.0.0.1:{client}",
        "--listen",
        f"127.0.0.1:{grpc}",
        "--rest-listen",
        f"127.0.0.1:{rest}",
    ]
    url = f"http://127.0.0.1:{rest}"
    processes = []
    try:
        for name, command in (("etcd", etcd), ("apiserver", server)):
            with (workdir / f"{name}.log").open("wb") as log:
                processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        _wait_ready(url, workdir)
        yield url
        processes[1].terminate()
        assert processes[1].wait(20) == 0, "SIGTERM must end the apiserver with 0"
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _wait_ready(url: str, workdir: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline:
                pytest.fail((workdir / "apiserver.log").read_text())
            time.sleep(0.05)


Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def kubectl(rest_url: str, kubectl_path: str, workdir: Path) -> Kubectl:
    """Run kubectl against the gateway; ``code`` is the exit code that is expected."""

    def run(*arguments: str, stdin: str | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [kubectl_path, "--kubeconfig=/dev/null", "-s", rest_url, *arguments]
        environment = {"HOME": str(workdir), "PATH": os.environ["PATH"]}
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=60, env=environment, check=False
        )
        assert done.returncode == code, f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done

    return run
