"""Objects in few words, and a real apiserver on a real etcd in this process."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from control.api.codec import from_json
from control.apiserver.main import Options, serve_options
from control.client import Client, errors
from protos.k8s import core_v1_pb2 as core

NOW = 1_000_000.0


@pytest.fixture
def now() -> float:
    """The present, seconds since the epoch."""
    return NOW


@pytest.fixture
def make() -> Callable[[dict[str, Any]], Any]:
    """From JSON to a message."""
    return from_json


@pytest.fixture
def pod() -> Callable[..., core.Pod]:
    """``pod("p1", ready=True, on="n1", owner=rc, labels={...}, ip="10.0.0.1", deleting=False, phase="Running")``."""

    def build(
        name: str,
        ready: bool = True,
        on: str = "n1",
        owner: Any = None,
        labels: dict[str, str] | None = None,
        ip: str = "10.0.0.1",
        deleting: bool = False,
        phase: str = "Running",
        ready_for: int = 100,
        age: int = 200,
        ports: tuple[tuple[str, int], ...] = (("http", 8080),),
        **spec: Any,
    ) -> core.Pod:
        container = {
            "name": "c",
            "image": "i",
            "ports": [{"name": port, "containerPort": number} for port, number in ports],
        }
        metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "labels": labels or {"app": "web"}}
        made: core.Pod = from_json(
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container], **spec}}
        )
        made.metadata.creationTimestamp.seconds = int(NOW) - age
        made.spec.nodeName, made.status.phase, made.status.podIP = on, phase, ip
        condition = made.status.conditions.add(type="Ready", status="True" if ready else "False")
        condition.lastTransitionTime.seconds = int(NOW) - ready_for
        if owner is not None:
            reference = made.metadata.ownerReferences.add(kind="ReplicationController", apiVersion="v1")
            reference.name, reference.uid, reference.controller = owner.metadata.name, owner.metadata.uid, True
        if deleting:
            made.metadata.deletionTimestamp.seconds = int(NOW)
        return made

    return build


@pytest.fixture
def rc() -> core.ReplicationController:
    """A ReplicationController that wants three pods labelled app=web."""
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    made: core.ReplicationController = from_json(
        {
            "apiVersion": "v1",
            "kind": "ReplicationController",
            "metadata": {"name": "web", "namespace": "default", "uid": "uid-rc"},
            "spec": {"replicas": 3, "selector": {"app": "web"}, "template": template},
        }
    )
    return made


@pytest.fixture
def service() -> Callable[..., core.Service]:
    """``service(port=80, target=8080, **spec)`` selecting app=web."""

    def build(port: int = 80, target: Any = 8080, **spec: Any) -> core.Service:
        body = {
            "selector": {"app": "web"},
            "clusterIP": "10.96.0.9",
            "ports": [{"port": port, "targetPort": target, "protocol": "TCP"}],
            **spec,
        }
        metadata = {"name": "web", "namespace": "default", "uid": "uid-svc", "labels": {"tier": "front"}}
        made: core.Service = from_json({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": body})
        return made

    return build


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _etcd(directory: Path) -> tuple["subprocess.Popen[bytes]", str]:
    client, peer = f"http://127.0.0.1:{_free_port()}", f"http://127.0.0.1:{_free_port()}"
    command = [
        "etcd", "--data-dir", str(directory), "--log-level", "error",
        "--listen-client-urls", client, "--advertise-client-urls", client,
        "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), client


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A client of a fresh apiserver."""
    if not shutil.which("etcd"):
        pytest.skip("etcd is not installed (Debian package etcd-server)")
    etcd, url = _etcd(tmp_path / "etcd")
    server = f"127.0.0.1:{_free_port()}"
    ready = asyncio.Event()
    serving = asyncio.create_task(serve_options(Options((url,), listen=server), ready))
    try:
        await ready.wait()
        async with Client(server) as connected:
            yield connected
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        etcd.terminate()
        etcd.wait()


@pytest.fixture
def until() -> Callable[..., Any]:
    """``await until(lambda: check())``: what the check returns once it is true. NotFound counts as not yet."""

    async def wait(check: Callable[[], Any], timeout_s: float = 15.0) -> Any:
        async with asyncio.timeout(timeout_s):
            while True:
                with contextlib.suppress(errors.NotFound):
                    if found := await check():
                        return found
                await asyncio.sleep(0.02)

    return wait
