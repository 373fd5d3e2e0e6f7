"""Pods and runtime states in few words."""

from collections.abc import Callable
from typing import Any

import pytest

from control.api.codec import from_json
from control.kubelet.plan import spec_hash
from control.kubelet.state import Container, PodRuntime, Sandbox, State, pod_runtime
from protos.k8s import core_v1_pb2 as core

NOW = 1_000_000.0


@pytest.fixture
def pod() -> Callable[..., core.Pod]:
    """``pod("a", "b", init=["i"], restartPolicy="Never")``: a pod with these containers; the rest is spec fields."""

    def make(*containers: Any, init: tuple[Any, ...] = (), deleting: int | None = None, **spec: Any) -> core.Pod:
        metadata: dict[str, Any] = {"name": "web", "namespace": "default", "uid": "u1", "resourceVersion": "1"}
        body = {"containers": [_spec(c) for c in containers or ("main",)], **spec}
        if init:
            body["initContainers"] = [_spec(c) for c in init]
        made: core.Pod = from_json({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body})
        if deleting is not None:
            made.metadata.deletionTimestamp.seconds = int(NOW) + deleting
            made.metadata.deletionGracePeriodSeconds = deleting
        return made

    return make


def _spec(container: Any) -> dict[str, Any]:
    return {"name": container, "image": f"{container}:1"} if isinstance(container, str) else container


@pytest.fixture
def sandbox() -> Callable[..., Sandbox]:
    """A ready sandbox with an address."""

    def make(attempt: int = 0, ready: bool = True) -> Sandbox:
        return Sandbox(f"s{attempt}", attempt, ready, NOW - 100 + attempt, ("10.0.0.5",) if ready else ())

    return make


@pytest.fixture
def container() -> Callable[..., Container]:
    """``container("main", "running")``, ``container("main", "exited", code=1, attempt=2)``."""

    def make(name: str, state: str, attempt: int = 0, code: int = 0, ago: float = 0.0, **more: Any) -> Container:
        fields: dict[str, Any] = {
            "id": f"{name}-{attempt}",
            "name": name,
            "attempt": attempt,
            "sandbox_id": "s0",
            "state": State[state.upper()],
            "started_s": NOW - ago - 5,
            "finished_s": NOW - ago if state == "exited" else 0.0,
            "exit_code": code,
            "image": f"{name}:1",
            "spec_hash": spec_hash(core.Container(name=name, image=f"{name}:1")),
        }
        return Container(**{**fields, **more})

    return make


@pytest.fixture
def state() -> Callable[..., PodRuntime]:
    """What the runtime has: sandboxes and containers in any order."""

    def make(*things: Sandbox | Container) -> PodRuntime:
        sandboxes = [thing for thing in things if isinstance(thing, Sandbox)]
        return pod_runtime("u1", sandboxes, [thing for thing in things if isinstance(thing, Container)])

    return make


@pytest.fixture
def now() -> float:
    """The present, seconds since the epoch."""
    return NOW
