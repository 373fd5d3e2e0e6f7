"""Servers to hold against each other: our store and the etcd of the machine, each in its own process."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for_port(address: str, process: subprocess.Popen[bytes]) -> None:
    """Until the server accepts calls; a server that ends instead fails the test with its exit code."""
    with grpc.insecure_channel(address) as channel:
        ready = grpc.channel_ready_future(channel)
        deadline = time.monotonic() + 20
        while True:
            try:
                return ready.result(timeout=0.2)
            except grpc.FutureTimeoutError:
                assert process.poll() is None, f"the server ended with {process.returncode}"
                assert time.monotonic() < deadline, "the server does not answer"


class ServerProcess:
    """A store in a process that can be killed and started again on the same directory and port."""

    def __init__(self, command: Callable[[str, str], list[str]], log: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.address}"
        self._command = command(self.url, f"http://127.0.0.1:{free_port()}")
        self._log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_for_port(self.address, self.process)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=20)


def knarr(directory: Path, *flags: str, extra_client_url: str = "") -> ServerProcess:
    def command(url: str, peer: str) -> list[str]:
        listen = f"{url},{extra_client_url}".rstrip(",")
        urls = ["--listen-client-urls", listen, "--advertise-client-urls", url, "--listen-peer-urls", peer]
        return [sys.executable, "-m", "raftstore", "--data-dir", str(directory / "data"), *urls, *flags]

    return ServerProcess(command, directory / "knarr.log")


def etcd(directory: Path) -> ServerProcess:
    program = shutil.which("etcd")
    if program is None:
        pytest.skip("etcd (Debian package etcd-server) is not installed")

    def command(url: str, peer: str) -> list[str]:
        urls = ["--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peer]
        first = ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
        return [program, "--data-dir", str(directory / "data"), *urls, *first, "--log-level", "error"]

    return ServerProcess(command, directory / "etcd.log")


@pytest.fixture
def start_knarr(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Start our store on this test's directory, with flags; killed afterwards."""
    started: list[ServerProcess] = []

    def start(*flags: str, extra_client_url: str = "") -> ServerProcess:
        started.append(knarr(tmp_path, *flags, extra_client_url=extra_client_url))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="module")
def knarr_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = knarr(tmp_path_factory.mktemp("knarr"), "--watch-progress-notify-interval", "200ms")
    yield server
    server.kill()


@pytest.fixture(scope="module")
def etcd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = etcd(tmp_path_factory.mktemp("etcd"))
    yield server
    server.kill()


@pytest.fixture(scope="module", params=["knarr", "etcd"])
def any_server(request: pytest.FixtureRequest) -> ServerProcess:
    """Our store, then the real one: what holds of both is the contract."""
    return request.getfixturevalue(f"{request.param}_server")


@pytest.fixture
def etcdctl(knarr_server: ServerProcess) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the machine's etcdctl against our store."""
    program = shutil.which("etcdctl")
    if program is None:
        pytest.skip("etcdctl (Debian package etcd-client) is not installed")

    def run(*words: str, stdin: str = "", timeout: float = 20) -> subprocess.CompletedProcess[str]:
        command = [program, "--endpoints", knarr_server.address, *words]
        environment = {**os.environ, "ETCDCTL_API": "3"}
        return subprocess.run(command, input=stdin, env=environment, capture_output=True, text=True, timeout=timeout)

    return run
