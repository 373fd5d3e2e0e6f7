"""A node in a network namespace of its own, and pods that are namespaces held by a process."""

import ctypes
import os
import secrets
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cri_runtime.linux.netlink import Netlink, set_link_up
from cri_runtime.network import BridgeNetwork

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Pod:
    """A network namespace, as a sandbox has one."""

    process: subprocess.Popen[bytes]
    sandbox_id: str = field(default_factory=lambda: secrets.token_hex(32))

    @property
    def netns(self) -> Path:
        return Path(f"/proc/{self.process.pid}/ns/net")

    def run(self, *command: str) -> str:
        """Run a command inside and return what it printed."""
        enter = ["nsenter", f"--net={self.netns}", *command]
        return subprocess.run(enter, check=True, capture_output=True, text=True).stdout

    def socket(self, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket of this namespace, used from outside."""
        with within(self.netns):
            made = socket.socket(socket.AF_INET, kind)
            made.settimeout(5)
            return made


class within:
    """This thread in another network namespace, for the length of the block."""

    def __init__(self, netns: Path) -> None:
        self._netns = netns

    def __enter__(self) -> None:
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(self._netns, os.O_RDONLY)
        assert _libc.setns(there, CLONE_NEWNET) == 0
        os.close(there)

    def __exit__(self, *exc: object) -> None:
        assert _libc.setns(self._home, CLONE_NEWNET) == 0
        os.close(self._home)


@pytest.fixture
def node() -> Iterator[None]:
    """The test's own thread, and every thread it starts, in a fresh network namespace: nothing can be left behind."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes network namespaces")
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    assert _libc.unshare(CLONE_NEWNET) == 0
    with Netlink() as kernel:
        kernel.request(set_link_up(1))
    yield
    assert _libc.setns(home, CLONE_NEWNET) == 0
    os.close(home)


@pytest.fixture
def make_pod(node: None) -> Iterator[Callable[[], Pod]]:
    """Makes network namespaces; they end with the test."""
    pods: list[Pod] = []

    def make() -> Pod:
        here = Path("/proc/thread-self/ns/net").stat().st_ino
        process = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep 1000"], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        pods.append(Pod(process))
        assert pods[-1].netns.stat().st_ino != here
        return pods[-1]

    yield make
    for pod in pods:
        pod.process.kill()
        pod.process.communicate()


@pytest.fixture
def make_network(node: None, tmp_path: Path) -> Callable[[], BridgeNetwork]:
    """Another daemon over the same records."""
    return lambda: BridgeNetwork("ktest0", "10.250.1.0/24", tmp_path / "network")


@pytest.fixture
async def network(make_network: Callable[[], BridgeNetwork]) -> AsyncIterator[BridgeNetwork]:
    """The built-in network, set up."""
    made = make_network()
    await made.setup()
    yield made
    await made.aclose()


@pytest.fixture
def devices(node: None) -> Callable[[], set[str]]:
    """The names of the node's devices."""

    def names() -> set[str]:
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
        return {line.split(":")[0].strip() for line in lines}

    return names
