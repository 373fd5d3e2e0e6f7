"""A runtime that restarts must not empty every service: its node stays ready for a while."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from control.kubelet.nodestatus import RUNTIME_GRACE_S, Identity, NodeReporter
from control.kubelet.runtime import RuntimeFailed
from protos.cri import runtime_pb2 as cri


class FakeRuntime:
    """Answers while it is up."""

    def __init__(self) -> None:
        self.up = True

    async def version(self) -> cri.VersionResponse:
        if not self.up:
            raise RuntimeFailed("Version", grpc.StatusCode.UNAVAILABLE, "connection refused")
        return cri.VersionResponse(runtime_name="knarr", runtime_version="0.1.0")

    async def status(self) -> cri.StatusResponse:
        return cri.StatusResponse()


@pytest.fixture
def clock() -> list[float]:
    return [1000.0]


@pytest.fixture
def reporter(clock: list[float], tmp_path: Path) -> NodeReporter:
    nobody: Any = None
    runtime: Any = FakeRuntime()
    return NodeReporter(nobody, runtime, Identity("n", "192.0.2.1"), nobody, tmp_path, now=lambda: clock[0])


async def test_a_short_silence_of_the_runtime_leaves_the_node_ready(reporter: NodeReporter, clock: list[float]) -> None:
    assert (await reporter._health()).problem == ""
    reporter.runtime.up = False  # type: ignore[attr-defined]
    clock[0] += RUNTIME_GRACE_S - 1
    assert (await reporter._health()).problem == ""
    clock[0] += 1
    assert (await reporter._health()).problem == "container runtime is down: connection refused"
    reporter.runtime.up = True  # type: ignore[attr-defined]
    assert (await reporter._health()).problem == ""


async def test_a_runtime_that_never_answered_makes_no_node_ready(reporter: NodeReporter) -> None:
    reporter.runtime.up = False  # type: ignore[attr-defined]
    assert "container runtime is down" in (await reporter._health()).problem
