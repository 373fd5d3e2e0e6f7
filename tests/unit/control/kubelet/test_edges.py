"""Probes, images, streams, stats and node status: their pure parts, and probes against real sockets."""

import asyncio
import base64
import json
from typing import Any

import aiohttp
from aiohttp import web as http

from control.api.codec import from_json
from control.kubelet.images import credentials, pull_policy
from control.kubelet.machine import Machine, Pressure
from control.kubelet.nodestatus import Identity, RuntimeHealth, health_of, node_status, same_but_heartbeat
from control.kubelet.probes import Prober, Streak, port_number
from control.kubelet.stats import Sample, rate_nano_cores
from control.kubelet.streams import exit_of
from protos.cri import runtime_pb2 as cri
from protos.k8s import core_v1_pb2 as core

MACHINE = Machine(2, 8 << 30, 100 << 30, "host", "mid", "bid", "6.18", "Debian", "amd64")
PRESSURE = Pressure(4 << 30, 0.5, 30_000)


def test_streak_changes_only_after_enough_answers() -> None:
    streak = Streak(True)
    results = []
    for ok in (False, False, True, False, False, False, True, True):
        streak = streak.after(ok, success_threshold=2, failure_threshold=3)
        results.append(streak.result)
    assert results == [True, True, True, True, True, False, False, True]


def test_probe_ports_by_name_and_number() -> None:
    spec = core.Container(name="c")
    spec.ports.add(name="web", containerPort=8080)
    action = core.HTTPGetAction()
    action.port.type, action.port.strVal = 1, "web"
    assert port_number(spec, action.port) == 8080
    action.port.type, action.port.intVal = 0, 99
    assert port_number(spec, action.port) == 99


async def test_http_probe_follows_a_real_server(pod: Any, container: Any) -> None:
    healthy = True

    async def handle(request: http.Request) -> http.Response:
        return http.Response(status=200 if healthy else 503)

    app = http.Application()
    app.router.add_get("/ok", handle)
    runner = http.AppRunner(app)
    await runner.setup()
    site = http.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    probe = {"httpGet": {"path": "/ok", "port": port}, "periodSeconds": 1, "failureThreshold": 1}
    spec = {"name": "main", "image": "i", "readinessProbe": probe}
    changed = asyncio.Event()
    told: list[str] = []
    async with aiohttp.ClientSession() as session:
        prober = Prober(None, session, changed.set, lambda s, kind, message: told.append(message))  # type: ignore[arg-type]
        running = {"main": container("main", "running")}
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            prober.sync(pod(spec), running, "127.0.0.1", tasks)
            assert not prober.results["main-0"].ready
            await changed.wait()
            assert prober.results["main-0"].ready
            changed.clear()
            healthy = False
            await changed.wait()
            assert not prober.results["main-0"].ready
            prober.sync(pod(spec), {}, "127.0.0.1", tasks)
            assert prober.results == {}
    assert told[0] == "HTTP probe failed with statuscode: 503"
    await runner.cleanup()


def test_pull_policies() -> None:
    def policy(image: str, given: str = "") -> str:
        return pull_policy(core.Container(image=image, imagePullPolicy=given))

    assert policy("web") == policy("web:latest") == policy("host:5000/web") == "Always"
    assert policy("web:1") == policy("host:5000/web@sha256:ab") == "IfNotPresent"
    assert policy("web", "Never") == "Never"


def test_pull_secrets() -> None:
    auths = {
        "registry.example": {"auth": base64.b64encode(b"u:p").decode()},
        "https://index.docker.io/v1/": {"username": "hub", "password": "x"},
    }
    secret = core.Secret(data={".dockerconfigjson": json.dumps({"auths": auths}).encode()})
    (found,) = credentials("registry.example/a/b:1", [secret])
    assert (found.username, found.password) == ("u", "p")
    assert [auth.username for auth in credentials("nginx", [secret])] == ["hub"]
    assert credentials("other.example/x", [secret]) == []


def test_exits() -> None:
    causes = {"causes": [{"reason": "ExitCode", "message": "7"}]}
    failed = {"status": "Failure", "reason": "NonZeroExitCode", "message": "m", "details": causes}
    assert exit_of(b'{"status":"Success"}').code == 0
    assert exit_of(json.dumps(failed).encode()).code == 7
    broken = exit_of(b'{"status":"Failure","reason":"InternalError","message":"no such file"}')
    assert (broken.code, broken.message) == (1, "no such file")
    assert exit_of(b"text").message == "text"


def test_rates() -> None:
    assert rate_nano_cores(Sample(0, 0), Sample(500_000_000, 1_000_000_000)) == 500_000_000
    assert rate_nano_cores(None, Sample(1, 1)) == 0
    assert rate_nano_cores(Sample(9, 0), Sample(1, 1)) == 0


def test_node_status() -> None:
    identity = Identity("n1", "192.0.2.1", 10250)
    health = RuntimeHealth("knarr://0.1.0")
    first = node_status(core.NodeStatus(), identity, MACHINE, PRESSURE, health, 1000)
    assert {name: value.string for name, value in first.capacity.items()} == {
        "cpu": "2", "memory": "8Gi", "ephemeral-storage": "100Gi", "pods": "110",
    }  # fmt: skip
    assert [(c.type, c.status) for c in first.conditions] == [
        ("MemoryPressure", "False"), ("DiskPressure", "False"), ("PIDPressure", "False"), ("Ready", "True"),
    ]  # fmt: skip
    later = node_status(first, identity, MACHINE, PRESSURE, health, 1010)
    assert same_but_heartbeat(first, later) and first != later
    down = node_status(first, identity, MACHINE, PRESSURE, RuntimeHealth("", "runtime is down"), 1020)
    ready = down.conditions[3]
    assert (ready.status, ready.message, ready.lastTransitionTime.seconds) == ("False", "runtime is down", 1020)
    assert down.conditions[0].lastTransitionTime.seconds == 1000


def test_runtime_health() -> None:
    version = cri.VersionResponse(runtime_name="knarr", runtime_version="v0.1.0")
    status = cri.StatusResponse()
    status.status.conditions.add(type="RuntimeReady", status=True)
    status.status.conditions.add(type="NetworkReady", status=False, reason="NetworkPluginNotReady", message="no bridge")
    health = health_of(version, status)
    assert health.version == "knarr://0.1.0"
    assert health.problem == "NetworkReady=false reason:NetworkPluginNotReady message:no bridge"


def test_liveness_answer_survives_unknown_fields() -> None:
    """A manifest with every probe kind decodes into what the prober reads."""
    probe = {"grpc": {"port": 1}, "timeoutSeconds": 2}
    made = from_json(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c", "image": "i", "livenessProbe": probe}]},
        }
    )
    assert made.spec.containers[0].livenessProbe.handler.grpc.port == 1
