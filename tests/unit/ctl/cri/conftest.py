"""``ctl cri`` as a user runs it: a process, on two CRI runtimes, of which one is not knarr's."""

import asyncio
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from cri_runtime.network import BridgeNetwork
from ctl.errors import report
from ctl.main import app

FIXTURE = Path(__file__).parents[3] / "contract/cri/containerd_fixture.py"


def load_fixture() -> Any:
    spec = importlib.util.spec_from_file_location("containerd_fixture", FIXTURE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def containerd_module() -> Any:
    """tests/contract/cri/containerd_fixture.py."""
    return load_fixture()


@pytest.fixture(scope="session", params=["containerd", "knarr"])
def runtime(request: pytest.FixtureRequest) -> str:
    """Which runtime it is: the same commands must print the same on both."""
    return str(request.param)


@pytest.fixture(scope="session")
def endpoint(runtime: str, containerd_module: Any) -> Iterator[str]:
    """The CRI endpoint of a private runtime that has the test images."""
    if missing := containerd_module.missing():
        pytest.skip(f"containerd cannot run here: {missing} missing")
    directory = Path(tempfile.mkdtemp(prefix="kcri", dir="/tmp"))
    start = containerd_module.containerd if runtime == "containerd" else knarr
    with start(directory) as address:
        if runtime == "knarr":
            load_images(directory, address, containerd_module)
        yield address
    shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def knarr(directory: Path) -> Iterator[str]:
    """A private cri_runtime; its bridge and table go with it."""
    bridge, cidr, address = (
        f"kr{os.getpid() % 100000}",
        f"10.252.{os.getpid() % 256}.0/24",
        f"unix://{directory}/c.sock",
    )
    places = [f"--root={directory}/root", f"--state={directory}/state", f"--listen={address}"]
    command = [sys.executable, "-m", "cri_runtime", *places, f"--bridge={bridge}", f"--pod-cidr={cidr}"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    fixture = load_fixture()
    try:
        fixture.wait_for_socket(directory / "c.sock", process)
        yield address
    finally:
        fixture.remove_pods(address)
        process.terminate()
        process.wait(20)
        asyncio.run(teardown(BridgeNetwork(bridge, cidr, directory / "state/network")))


async def teardown(network: BridgeNetwork) -> None:
    await network.setup()
    await network.teardown()
    await network.aclose()


def load_images(directory: Path, address: str, containerd_module: Any) -> None:
    archive = directory / "images.tar"
    containerd_module.write_archive(archive, containerd_module.layer_of(containerd_module.PROGRAMS))
    command = [sys.executable, "-m", "ctl", "--runtime-endpoint", address, "image", "load", "-i", str(archive)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="session")
def argv(endpoint: str) -> list[str]:
    """What every command starts with."""
    return [sys.executable, "-m", "ctl", "--runtime-endpoint", endpoint, "cri"]


STREAMS = ("exec", "attach", "logs", "port-forward", "events")
"""Commands that write to the process's own descriptors: they get a process each."""


@pytest.fixture(scope="session")
def ctl(argv: list[str], endpoint: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``ctl cri ...``; ``code`` is the exit code that is expected, None is any."""

    def run(*args: str, code: int | None = 0, input: str = "") -> subprocess.CompletedProcess[str]:
        if args[0] in STREAMS:
            done = subprocess.run([*argv, *args], input=input, capture_output=True, text=True, timeout=60)
        else:
            done = in_process(endpoint, *args)
        assert code is None or done.returncode == code, f"ctl cri {' '.join(args)}: {done.stdout}{done.stderr}"
        return done

    return run


def in_process(endpoint: str, *args: str) -> subprocess.CompletedProcess[str]:
    """The same command by the same entrance, without the third of a second that a process takes."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = app.main(["--runtime-endpoint", endpoint, "cri", *args], prog_name="ctl", standalone_mode=False)
        except BaseException as failure:
            code = report(failure)
    return subprocess.CompletedProcess(args, code if isinstance(code, int) else 0, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def configs(endpoint: str, containerd_module: Any) -> Path:
    """A folder with pod.json and ctr.yaml as crictl's users write them."""
    directory = Path(endpoint.removeprefix("unix://")).parent / "configs"
    (directory / "logs/main").mkdir(parents=True)
    (directory / "pod.json").write_text(
        f"""{{"metadata": {{"name": "web", "namespace": "default", "attempt": 0}},
             "log_directory": "{directory}/logs", "linux": {{}}, "labels": {{"app": "web"}}}}"""
    )
    (directory / "ctr.yaml").write_text(
        f"""
metadata: {{name: main}}
image: {{image: "{containerd_module.TEST_IMAGE}"}}
command: [sh, -c, "echo hello $WHO; echo oops >&2; exec sleep 1000"]
envs: [{{key: WHO, value: "wörld"}}]
log_path: main/0.log
labels: {{io.kubernetes.pod.name: web, io.kubernetes.pod.namespace: default}}
"""
    )
    return directory


@pytest.fixture(scope="session")
def pod(ctl: Callable[..., Any], configs: Path) -> str:
    """A running pod."""
    return str(ctl("runp", str(configs / "pod.json")).stdout.strip())


@pytest.fixture(scope="session")
def container(ctl: Callable[..., Any], configs: Path, pod: str) -> str:
    """A running container in it."""
    made = ctl("create", pod, str(configs / "ctr.yaml"), str(configs / "pod.json")).stdout.strip()
    assert ctl("start", made).stdout.strip() == made
    return str(made)
