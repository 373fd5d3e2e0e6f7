"""Two nodes of one machine, each with its own runtime, directories and bridge, and a registry between them."""

import asyncio
import io
import os
import pty
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from cri_runtime.network import BridgeNetwork
from ctl.errors import report
from ctl.main import app

Done = subprocess.CompletedProcess[str]

IN_ITS_OWN_PROCESS = ("run", "exec", "attach", "logs", "start", "push")
"""Commands that write to the process's own descriptors, or take its signals."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs root; one worker has the nodes."""
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.xdist_group("container"))


class Node:
    """A runtime, and ``ctl`` on it."""

    def __init__(self, number: int) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="kn", dir="/tmp"))
        tag = secrets.token_hex(3)
        self.endpoint = f"unix://{self.base}/c.sock"
        self.network = (f"kn{tag}", f"10.{240 + number}.{int(tag[:2], 16)}.0/24", self.base / "run/network")
        self._log = (self.base / "log").open("wb")
        self.process = subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-m",
                    "cri_runtime",
                    "--root",
                    str(self.base / "root"),
                    "--state",
                    f"{self.base}/run",
                ),
                *("--listen", self.endpoint, "--bridge", self.network[0], "--pod-cidr", self.network[1]),
            ],
            stderr=self._log,
        )

    def wait_ready(self) -> None:
        """Until it serves."""
        channel = grpc.insecure_channel(self.endpoint, options=[("grpc.default_authority", "localhost")])
        grpc.channel_ready_future(channel).result(timeout=30)
        channel.close()

    @property
    def flags(self) -> list[str]:
        """What every command starts with."""
        return ["--runtime-endpoint", self.endpoint, "--state-dir", str(self.base / "x")]

    def run(self, *words: str, input: str | None = None) -> Done:
        """``ctl words...``, whatever comes of it."""
        if input is not None or words[1] in IN_ITS_OWN_PROCESS:
            command = [sys.executable, "-m", "ctl", *self.flags, *words]
            source = {"input": input} if input is not None else {"stdin": subprocess.DEVNULL}
            return subprocess.run(command, capture_output=True, text=True, timeout=60, **source)  # type: ignore[call-overload]
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = app.main([*self.flags, *words], prog_name="ctl", standalone_mode=False)
            except BaseException as failure:
                code = report(failure)
        return subprocess.CompletedProcess(words, code if isinstance(code, int) else 0, out.getvalue(), err.getvalue())

    def ctl(self, *words: str, input: str | None = None) -> str:
        """``ctl words...`` must succeed; what it says."""
        done = self.run(*words, input=input)
        assert done.returncode == 0, f"ctl {' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def container(self, *words: str, input: str | None = None) -> str:
        """``ctl container words...`` must succeed."""
        return self.ctl("container", *words, input=input)

    def clear(self) -> None:
        """Remove every container."""
        if names := self.container("ps", "-aq").split():
            self.container("rm", "-f", "-v", *names)

    def traces(self) -> list[str]:
        """What containers leave while they are there."""
        mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(self.base) in line]
        folders = ("root/containers", "run/pods", "x/containers")
        return mounts + [str(path) for folder in folders for path in (self.base / folder).glob("*")]

    def close(self) -> None:
        """End it, and take its network away."""
        self.clear()
        self.process.terminate()
        self.process.wait(20)
        self._log.close()
        asyncio.run(_teardown(BridgeNetwork(*self.network)))
        shutil.rmtree(self.base, ignore_errors=True)


async def _teardown(network: BridgeNetwork) -> None:
    await network.setup()
    await network.teardown()
    await network.aclose()


@pytest.fixture(scope="session")
def nodes() -> Iterator[tuple[Node, Node]]:
    """Two nodes; the first has the images busybox and python:host."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if shutil.which("busybox") is None:
        pytest.skip("the host has no busybox to make an image of")
    both = (Node(0), Node(1))
    try:
        for node in both:
            node.wait_ready()
        both[0].ctl("image", "from-host", "busybox", "--tag", "busybox")
        both[0].ctl("image", "from-host", "python3", "sh", "bash", "busybox", "--tag", "python:host")
        yield both
    finally:
        for node in both:
            node.close()


@pytest.fixture
def node(nodes: tuple[Node, Node]) -> Iterator[Node]:
    """The first node; nothing of any container may be left after a test."""
    yield nodes[0]
    nodes[0].clear()
    assert nodes[0].traces() == []


@pytest.fixture
def other_node(nodes: tuple[Node, Node]) -> Iterator[Node]:
    """The second node, which has no images."""
    yield nodes[1]
    nodes[1].clear()
    assert nodes[1].traces() == []


@pytest.fixture
def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A registry's address, ``localhost:PORT``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "cri_runtime.registry", "--root", str(tmp_path), "--listen", f"127.0.0.1:{port}"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: _connects(port))
        yield f"localhost:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def eventually(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """What ``condition`` returns once it is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return value


@pytest.fixture(name="eventually")
def _eventually() -> Callable[..., Any]:
    return eventually


class Terminal:
    """``ctl words...`` on a terminal of its own, and who sits at it."""

    def __init__(self, words: Sequence[str]) -> None:
        self._master, slave = pty.openpty()
        command = [sys.executable, "-m", "ctl", *words]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        self.said = b""

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._master, keys)

    def until(self, text: bytes) -> None:
        """Read until ``text`` has been said."""
        while text not in self.said:
            self.said += os.read(self._master, 4096)

    def end(self) -> int:
        """Read to the end; the exit code."""
        with suppress(OSError):  # EIO: nobody has the other side any more
            while data := os.read(self._master, 4096):
                self.said += data
        return self.process.wait(20)

    def close(self) -> None:
        """Leave; whoever still runs loses the terminal."""
        os.close(self._master)
        self.process.wait(20)


@pytest.fixture
def terminal() -> Callable[..., Any]:
    """``with terminal("container", "run", "-it", ...) as user:``"""
    return lambda *words: closing(Terminal(words))
