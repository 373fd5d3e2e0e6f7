"""``ctl rollout`` on a real Deployment."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

MANIFEST = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "rolled"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "rolled"}},
        "template": {
            "metadata": {"labels": {"app": "rolled"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {
                        "name": "c",
                        "image": "python:host",
                        "imagePullPolicy": "Never",
                        "command": ["python3", "-c", "import signal; signal.pause()"],
                        "env": [{"name": "VERSION", "value": "1"}],
                    }
                ],
            },
        },
    },
}


@pytest.fixture(scope="module")
def rolled(cluster: Any) -> Iterator[Any]:
    """A Deployment of two pods, rolled out."""
    cluster.ctl("apply", "-f", "-", stdin=json.dumps(MANIFEST))
    assert "successfully rolled out" in cluster.ctl("rollout", "status", "deploy/rolled", "--timeout=60s")
    yield cluster
    cluster.ctl("delete", "deploy", "rolled", "--no-wait")


def version(cluster: Any) -> str:
    env = cluster.get("deploy", "rolled")["spec"]["template"]["spec"]["containers"][0]["env"]
    return str(env[0]["value"])


def set_version(cluster: Any, value: str) -> None:
    container = {"name": "c", "env": [{"name": "VERSION", "value": value}]}
    patch = {"spec": {"template": {"spec": {"containers": [container]}}}}
    cluster.ctl("patch", "deploy", "rolled", "-p", json.dumps(patch))


def test_a_change_is_followed_listed_and_undone(rolled: Any) -> None:
    set_version(rolled, "2")
    text = rolled.ctl("rollout", "status", "deploy/rolled", "--timeout=60s")
    assert text.endswith('deployment "rolled" successfully rolled out\n')
    assert [line.split() for line in rolled.ctl("rollout", "history", "deploy/rolled").splitlines() if line] == [
        ["deployment.apps/rolled"],
        ["REVISION", "CHANGE-CAUSE"],
        ["1", "<none>"],
        ["2", "<none>"],
    ]
    assert rolled.ctl("rollout", "undo", "deploy/rolled") == "deployment.apps/rolled rolled back\n"
    assert version(rolled) == "1"
    rolled.ctl("rollout", "status", "deploy/rolled", "--timeout=60s")
    assert (
        "unable to find specified revision 9"
        in rolled.run("rollout", "undo", "deploy/rolled", "--to-revision=9").stderr
    )


def test_restart_replaces_every_pod(rolled: Any) -> None:
    before = {pod["metadata"]["name"] for pod in rolled.get("pods", "-l", "app=rolled")["items"]}
    assert rolled.ctl("rollout", "restart", "deploy/rolled") == "deployment.apps/rolled restarted\n"
    rolled.ctl("rollout", "status", "deploy/rolled", "--timeout=60s")
    after = {pod["metadata"]["name"] for pod in rolled.get("pods", "-l", "app=rolled")["items"] if _lives(pod)}
    assert not before & after


def _lives(pod: dict[str, Any]) -> bool:
    return "deletionTimestamp" not in pod["metadata"]


def test_a_paused_deployment_waits(rolled: Any) -> None:
    assert rolled.ctl("rollout", "pause", "deploy/rolled") == "deployment.apps/rolled paused\n"
    assert "is already paused" in rolled.run("rollout", "pause", "deploy/rolled").stderr
    assert "resume it first" in rolled.run("rollout", "undo", "deploy/rolled").stderr
    assert rolled.ctl("rollout", "resume", "deploy/rolled") == "deployment.apps/rolled resumed\n"
    assert "is not paused" in rolled.run("rollout", "resume", "deploy/rolled").stderr


def test_what_cannot_be_rolled_out_is_told(rolled: Any) -> None:
    assert "cannot be rolled out so" in rolled.run("rollout", "history", "rc/x").stderr
    assert 'deployments.apps "nothing" not found' in rolled.run("rollout", "status", "deploy/nothing").stderr
