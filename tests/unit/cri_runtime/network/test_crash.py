"""SIGKILL at any instant: what the next daemon finds by its records and the kernel, it frees."""

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cri_runtime.network import BridgeNetwork

pytestmark = pytest.mark.root

DAEMON = """
import asyncio, sys
from dataclasses import dataclass
from pathlib import Path
from cri_runtime.network import BridgeNetwork, PodIdentity

@dataclass(frozen=True)
class Mapping:
    container_port: int
    host_port: int
    protocol: int = 0
    host_ip: str = ""

async def main(state, pairs):
    network = BridgeNetwork("ktest0", "10.250.1.0/24", Path(state))
    await network.setup()
    await network.reconcile(set())
    print("up", flush=True)
    async def pod(index, sandbox, netns):
        while True:
            await network.attach(sandbox, Path(netns), PodIdentity("n", "p", "u"), [Mapping(80, 8000 + index)])
            await network.detach(sandbox)
    await asyncio.gather(*(pod(i, *pair.split("=")) for i, pair in enumerate(pairs)))

asyncio.run(main(sys.argv[1], sys.argv[2:]))
"""


async def test_nothing_leaks_over_many_kills(
    make_network: Callable[[], BridgeNetwork],
    make_pod: Callable[[], Any],
    devices: Callable[[], set[str]],
    tmp_path: Path,
) -> None:
    chance = random.Random(4)
    pods = [make_pod() for _ in range(4)]
    arguments = [f"{pod.sandbox_id}={pod.netns}" for pod in pods]
    for _ in range(8):
        command = [sys.executable, "-c", DAEMON, str(tmp_path / "network"), *arguments]
        daemon = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert daemon.stdout is not None
        assert await daemon.stdout.readline() == b"up\n"
        await asyncio.sleep(chance.uniform(0, 0.05))
        daemon.send_signal(signal.SIGKILL)
        await daemon.wait()
    network = make_network()
    await network.setup()
    await network.reconcile(set())
    await network.aclose()
    assert devices() == {"lo", "ktest0"}
    assert not list((tmp_path / "network/addresses").iterdir())
    assert not list((tmp_path / "network/hostports").iterdir())
    ruleset = (await (await _nft("list", "ruleset")).communicate())[0]
    assert b"elements" not in ruleset


async def _nft(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec("nft", *arguments, stdout=subprocess.PIPE)
