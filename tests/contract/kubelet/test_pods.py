"""Pods on a real runtime: started, told apart, restarted, logged, executed in, stopped; and what survives whom."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from control.api.codec import from_json
from protos.k8s import core_v1_pb2 as core
from protos.knarr import stream_pb2

# One worker runs them all: they share a control plane per runtime, and the pods' address ranges are theirs alone.
pytestmark = [pytest.mark.root, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("kubelet")]

FOREVER = ["sh", "-c", "echo started; trap 'exit 0' TERM; while :; do sleep 0.1; done"]
Manifest = Callable[..., core.Pod]


async def test_pod_runs_with_address_logs_and_exec_and_leaves_nothing(plane: Any, manifest: Manifest) -> None:
    await plane.client.create(manifest("web", FOREVER))
    pod = await plane.until(lambda: plane.running("web"))
    assert pod.status.podIP.startswith("10.251.")
    assert pod.status.containerStatuses[0].containerID.startswith(f"{await _runtime_name(plane)}://")
    assert pod.status.containerStatuses[0].restartCount == 0
    assert await _log(plane, "web") == "started\n"
    assert await _exec(plane, "web", ["sh", "-c", "echo out; echo err >&2; exit 3"]) == ("out\n", "err\n", 3)
    assert (await _exec(plane, "web", ["sh", "-c", "read x; echo $x"], stdin=b"hello\n"))[0] == "hello\n"
    if plane.runtime.name != "containerd":  # its WebSocket speaks v4, which cannot say that the input has ended
        assert (await _exec(plane, "web", ["cat"], stdin=b"hello"))[0] == "hello"
    await plane.client.delete(core.Pod, "web", namespace="default")
    await plane.until(plane.empty)


async def test_replication_controller_brings_back_what_dies_and_what_is_deleted(plane: Any, manifest: Manifest) -> None:
    template = manifest("x", FOREVER)
    rc = core.ReplicationController()
    rc.metadata.name, rc.metadata.namespace = "rc", "default"
    rc.spec.replicas = 3
    rc.spec.selector["app"] = "x"
    rc.spec.template.metadata.labels["app"] = "x"
    rc.spec.template.spec.CopyFrom(template.spec)
    await plane.client.create(rc)
    first = await plane.until(lambda: _ready_pods(plane, 3))
    victim = first[0].metadata.name
    await plane.client.delete(core.Pod, victim, namespace="default")
    second = await plane.until(lambda: _ready_pods(plane, 3, without=victim))
    assert {pod.metadata.name for pod in second} > {pod.metadata.name for pod in first[1:]}
    await plane.client.delete(core.ReplicationController, "rc", namespace="default")
    await plane.until(plane.empty)


async def test_container_that_exits_is_restarted_and_its_previous_log_kept(plane: Any, manifest: Manifest) -> None:
    script = "if [ -e /data/again ]; then echo second; sleep 60; else echo first; touch /data/again; exit 7; fi"
    mounts = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    await plane.client.create(
        manifest("crash", ["sh", "-c", script], mounts, volumes=[{"name": "data", "emptyDir": {}}])
    )
    pod = await plane.until(lambda: _restarted(plane, "crash", 1))
    last = pod.status.containerStatuses[0].lastState.terminated
    assert (last.exitCode, last.reason) == (7, "Error")
    assert await _log(plane, "crash", previous=True) == "first\n"
    assert await _log(plane, "crash") == "second\n"


async def test_run_to_completion(plane: Any, manifest: Manifest) -> None:
    init = {"name": "init", "image": manifest("x", []).spec.containers[0].image, "command": ["sh", "-c", "echo before"]}
    await plane.client.create(manifest("job", ["sh", "-c", "exit 0"], restartPolicy="Never", initContainers=[init]))
    await plane.client.create(manifest("fail", ["sh", "-c", "exit 4"], restartPolicy="Never"))
    pod = await plane.until(lambda: _phase(plane, "job", "Succeeded"))
    assert pod.status.initContainerStatuses[0].state.terminated.reason == "Completed"
    pod = await plane.until(lambda: _phase(plane, "fail", "Failed"))
    assert pod.status.containerStatuses[0].state.terminated.exitCode == 4


async def test_environment_config_and_probes(plane: Any, manifest: Manifest) -> None:
    await plane.client.create(
        from_json(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "c", "namespace": "default"},
                "data": {"k": "v"},
            }
        )
    )
    container = {
        "env": [
            {"name": "FROM_MAP", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "BOTH", "value": "$(POD)-$(FROM_MAP)"},
        ],
        "volumeMounts": [{"name": "files", "mountPath": "/files"}],
        "readinessProbe": {"exec": {"command": ["cat", "/tmp/ready"]}, "periodSeconds": 1},
    }
    command = ["sh", "-c", "echo $BOTH; cat /files/k; echo; sleep 60"]
    await plane.client.create(
        manifest("env", command, container, volumes=[{"name": "files", "configMap": {"name": "c"}}])
    )
    await plane.until(lambda: _phase(plane, "env", "Running"))
    await plane.until(lambda: _log_is(plane, "env", "env-v\nv\n"))
    assert await plane.running("env") is None
    await _exec(plane, "env", ["touch", "/tmp/ready"])
    await plane.until(lambda: plane.running("env"))


async def test_hooks_run_after_the_start_and_before_the_end(plane: Any, manifest: Manifest, tmp_path: Any) -> None:
    tmp_path.chmod(0o777)
    hooks = {
        "postStart": {"exec": {"command": ["touch", "/out/started"]}},
        "preStop": {"exec": {"command": ["touch", "/out/stopping"]}},
    }
    container = {"lifecycle": hooks, "volumeMounts": [{"name": "out", "mountPath": "/out"}]}
    volumes = [{"name": "out", "hostPath": {"path": str(tmp_path)}}]
    await plane.client.create(manifest("hooked", FOREVER, container, volumes=volumes))
    await plane.until(lambda: plane.running("hooked"))
    await plane.until(lambda: _there(tmp_path / "started"))
    assert not (tmp_path / "stopping").exists()
    await plane.client.delete(core.Pod, "hooked", namespace="default", grace_period_seconds=5)
    await plane.until(plane.empty)
    assert (tmp_path / "stopping").exists()


async def test_missing_image_and_missing_config_say_so(plane: Any, manifest: Manifest) -> None:
    await plane.client.create(manifest("never", FOREVER, {"image": "localhost/absent:1", "imagePullPolicy": "Never"}))
    await plane.client.create(manifest("noconf", FOREVER, {"envFrom": [{"configMapRef": {"name": "nope"}}]}))
    await plane.until(lambda: _waiting(plane, "never", "ErrImageNeverPull"))
    pod = await plane.until(lambda: _waiting(plane, "noconf", "CreateContainerConfigError"))
    assert 'configmap "nope" not found' in pod.status.containerStatuses[0].state.waiting.message


async def test_kubelet_restart_leaves_the_pod_alone_and_finds_the_orphan(plane: Any, manifest: Manifest) -> None:
    await plane.client.create(manifest("stays", FOREVER))
    await plane.client.create(manifest("goes", FOREVER))
    before = await plane.until(lambda: plane.running("stays"))
    await plane.until(lambda: plane.running("goes"))
    await plane.services["kubelet"].stop()
    await plane.client.delete(core.Pod, "goes", namespace="default", grace_period_seconds=0)
    plane.services["kubelet"].start()
    await plane.until(lambda: _only(plane, "stays"))
    after = await plane.running("stays")
    assert after.status.containerStatuses[0].containerID == before.status.containerStatuses[0].containerID


async def test_runtime_killed_and_back(plane: Any, manifest: Manifest) -> None:
    await plane.client.create(manifest("web", FOREVER))
    before = await plane.until(lambda: plane.running("web"))
    plane.runtime.kill()
    await plane.runtime.start()
    after = await plane.until(lambda: plane.running("web"))
    assert after.status.containerStatuses[0].containerID == before.status.containerStatuses[0].containerID
    await plane.client.create(manifest("next", FOREVER))
    await plane.until(lambda: plane.running("next"))


# -- helpers -----------------------------------------------------------------------------------------------------


async def _runtime_name(plane: Any) -> str:
    from control.kubelet.runtime import Runtime

    runtime = Runtime(plane.runtime.endpoint)
    try:
        return (await runtime.version()).runtime_name
    finally:
        await runtime.aclose()


async def _pods_in_runtime(plane: Any) -> list[str]:
    from control.kubelet.runtime import Runtime

    runtime = Runtime(plane.runtime.endpoint)
    try:
        return sorted(found.name for found in (await runtime.pods()).values())
    finally:
        await runtime.aclose()


async def _there(path: Any) -> bool:
    return bool(path.exists())


async def _only(plane: Any, name: str) -> bool:
    return await _pods_in_runtime(plane) == [name]


async def _ready_pods(plane: Any, number: int, without: str = "") -> list[core.Pod] | None:
    pods = (await plane.client.list(core.Pod, "default", label_selector="app=x")).items
    ready = [p for p in pods if any(c.type == "Ready" and c.status == "True" for c in p.status.conditions)]
    live = [p for p in ready if not p.metadata.HasField("deletionTimestamp")]
    return live if len(live) == number and without not in {p.metadata.name for p in pods} else None


async def _restarted(plane: Any, name: str, times: int) -> core.Pod | None:
    pod = await plane.running(name)
    return pod if pod is not None and pod.status.containerStatuses[0].restartCount >= times else None


async def _phase(plane: Any, name: str, phase: str) -> core.Pod | None:
    pod = await plane.pod(name)
    return pod if pod.status.phase == phase else None


async def _waiting(plane: Any, name: str, reason: str) -> core.Pod | None:
    pod = await plane.pod(name)
    found = [status.state.waiting.reason for status in pod.status.containerStatuses]
    return pod if reason in found else None


async def _log(plane: Any, name: str, previous: bool = False) -> str:
    target = stream_pb2.ContainerRef(namespace="default", pod=name)
    request = stream_pb2.LogRequest(target=target, previous=previous)
    return b"".join([chunk.data async for chunk in plane.client.log(request)]).decode()


async def _log_is(plane: Any, name: str, text: str) -> bool:
    return await _log(plane, name) == text


async def _exec(plane: Any, name: str, command: list[str], stdin: bytes = b"") -> tuple[str, str, int]:
    target = stream_pb2.ContainerRef(namespace="default", pod=name)
    start = stream_pb2.ExecStart(target=target, command=command, stdin=bool(stdin), stdout=True, stderr=True)
    call = plane.client.exec()
    await call.write(stream_pb2.ExecRequest(start=start))
    if stdin:
        await call.write(stream_pb2.ExecRequest(stdin=stdin))
        await call.write(stream_pb2.ExecRequest(stdin_closed=True))
    out, err, code = b"", b"", -1
    async with asyncio.timeout(20):
        async for message in call:
            out, err = out + message.stdout, err + message.stderr
            if message.HasField("exit"):
                code = message.exit.code
    return out.decode(), err.decode(), code
