"""Nodes and pods in few words."""

from collections.abc import Callable
from typing import Any

import pytest

from control.api.codec import from_json
from control.scheduler.cache import Cache, record_of
from control.scheduler.decision import Decision, decide
from protos.k8s import core_v1_pb2 as core


@pytest.fixture
def node() -> Callable[..., core.Node]:
    """``node("n1", cpu="4", labels={...}, taints=["key=value:NoSchedule"], ready="True", unschedulable=False)``."""

    def make(
        name: str,
        cpu: str = "4",
        memory: str = "8Gi",
        pods: str = "110",
        labels: dict[str, str] | None = None,
        taints: tuple[str, ...] = (),
        ready: str = "True",
        unschedulable: bool = False,
    ) -> core.Node:
        status = {
            "allocatable": {"cpu": cpu, "memory": memory, "pods": pods},
            "conditions": [{"type": "Ready", "status": ready}],
        }
        spec: dict[str, Any] = {"unschedulable": unschedulable, "taints": [_taint(text) for text in taints]}
        metadata = {"name": name, "labels": labels or {}}
        made: core.Node = from_json(
            {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec, "status": status}
        )
        return made

    return make


def _taint(text: str) -> dict[str, str]:
    pair, _, effect = text.partition(":")
    key, _, value = pair.partition("=")
    return {"key": key, "value": value, "effect": effect}


@pytest.fixture
def pod() -> Callable[..., core.Pod]:
    """``pod("web", cpu="500m", owner="uid", on="n1", ports=[80])``; the rest is spec fields."""

    def make(
        name: str = "web",
        cpu: str = "",
        memory: str = "",
        owner: str = "",
        on: str = "",
        ports: tuple[int, ...] = (),
        **spec: Any,
    ) -> core.Pod:
        requests = {key: value for key, value in (("cpu", cpu), ("memory", memory)) if value}
        container = {
            "name": "c",
            "image": "i",
            "resources": {"requests": requests},
            "ports": [{"containerPort": port, "hostPort": port} for port in ports],
        }
        metadata: dict[str, Any] = {"name": name, "namespace": "default", "uid": f"uid-{name}"}
        if owner:
            metadata["ownerReferences"] = [
                {"apiVersion": "v1", "kind": "ReplicationController", "name": "rc", "uid": owner, "controller": True}
            ]
        body = {"containers": [container], **({"nodeName": on} if on else {}), **spec}
        made: core.Pod = from_json({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body})
        return made

    return make


@pytest.fixture
def place() -> Callable[..., Decision]:
    """Decide for a pod on these nodes, with these pods on them already."""

    def run(pod: core.Pod, nodes: list[core.Node], others: tuple[core.Pod, ...] = ()) -> Decision:
        cache = Cache()
        for node in nodes:
            cache.set_node(node)
        for other in others:
            cache.set_pod(other)
        return decide(pod, record_of(pod), cache.nodes())

    return run
