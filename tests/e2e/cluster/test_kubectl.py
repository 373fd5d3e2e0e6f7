"""ctl beside the real kubectl on one cluster: the same words print the same text."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

KUBECTL = shutil.which("kubectl", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
pytestmark = pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")

TRIES = 5
"""Ages tick between two commands; then both are asked again."""

SERVE = "import http.server as h; h.ThreadingHTTPServer(('', 8000), h.SimpleHTTPRequestHandler).serve_forever()"


DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: rolled}
spec:
  selector: {matchLabels: {app: rolled}}
  template:
    metadata: {labels: {app: rolled}}
    spec:
      containers:
      - {name: c, image: "python:host", imagePullPolicy: Never, command: [python3, -c, "import signal; signal.pause()"]}
"""


@pytest.fixture(scope="module")
def populated(cluster: Any) -> Iterator[Any]:
    """The cluster with its REST gateway on, a controller of two pods, a service and a few plain objects."""
    cluster.ctl("down")
    cluster.ctl("up", f"--port-offset={cluster.port_offset}", "--rest")
    image = ["--image=python:host", "--image-pull-policy=Never"]
    cluster.ctl("run", "web", *image, "--port=8000", "--replicas=2", "--command", "--", "python3", "-c", SERVE)
    cluster.ctl("expose", "rc", "web", "--type=LoadBalancer", "--name=web-lb")
    cluster.ctl("create", "configmap", "settings", "--from-literal=a=1")
    cluster.ctl("create", "secret", "generic", "hidden", "--from-literal=a=1")
    cluster.ctl("apply", "-f", "-", stdin=DEPLOYMENT)
    cluster.ctl("rollout", "status", "deploy/rolled", "--timeout=60s")
    cluster.ctl("wait", "rc/web", "--for=jsonpath={.status.readyReplicas}=2", "--timeout=60s")
    cluster.ctl("wait", "svc/web-lb", "--for=jsonpath={.status.loadBalancer.ingress[0].ip}", "--timeout=30s")
    yield cluster
    cluster.ctl("delete", "deploy/rolled", "rc/web", "svc/web-lb", "configmap/settings", "secret/hidden", "--no-wait")


@pytest.fixture
def kubectl(populated: Any) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    environment = {**os.environ, "KUBECONFIG": str(populated.layout.kubeconfig)}

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        assert KUBECTL is not None
        return subprocess.run([KUBECTL, *words], env=environment, capture_output=True, text=True, timeout=60)

    return run


@pytest.mark.parametrize(
    "line",
    [
        "get pods",
        "get pods -o wide",
        "get pods -A --show-labels",
        "get pods -L run --no-headers",
        "get rc,svc,ep",
        "get all",
        "get nodes -o wide",
        "get namespaces",
        "get configmaps,secrets",
        "get events",
        "get pods -o name",
        "get pods -o yaml",
        "get svc web-lb -o json",
        "get pods -o jsonpath={.items[*].status.podIP}",
        "get pods -o custom-columns=NAME:.metadata.name,IP:.status.podIP,NONE:.spec.nothing",
        "get pods --sort-by=.metadata.name",
        "get pods -l run=nothing",
        "get pods -n kube-system",
        "get pv,pvc,sc",
        "get pod nothing",
        "get deployment nothing",
        "describe pods",
        "describe rc web",
        "describe svc",
        "describe endpoints web-lb",
        "describe nodes",
        "describe namespaces",
        "describe configmap settings",
        "describe pod nothing",
        "api-resources",
        "delete pod nothing",
        "scale rc nothing --replicas=2",
        "scale rc web --replicas=2",
        "annotate rc web note=hello --overwrite",
        "label rc web run=other",
        "label rc web run=web",
        "label rc web nothing-",
        "logs rc/web --tail=1",
        "wait rc/web --for=jsonpath={.status.replicas}=2",
        "rollout status deploy/rolled",
        "rollout history deploy/rolled",
        "describe deploy rolled",
        "describe rs",
        "get deploy,rs -o wide",
    ],
)
def test_ctl_prints_what_kubectl_prints(populated: Any, kubectl: Callable[..., Any], line: str) -> None:
    for _ in range(TRIES):
        ours, theirs = populated.run(*line.split()), kubectl(*line.split())
        if (ours.stdout, ours.stderr) == (theirs.stdout, theirs.stderr):
            break
    if ours.stdout != theirs.stdout:  # on a busy machine an age ticks every time
        assert ageless(ours.stdout) == ageless(theirs.stdout)
    assert ours.stderr == theirs.stderr
    assert ours.returncode == theirs.returncode


def ageless(text: str) -> str:
    """The text without its ages, and without the blanks that depend on their length."""
    return re.sub(r" +", " ", re.sub(r"\b(\d+[smhd]){1,2}\b", "AGE", text))


def test_events_are_the_same_in_the_order_of_their_seconds(populated: Any, kubectl: Callable[..., Any]) -> None:
    """Those of one second come in no particular order from kubectl, which sorts them unstably."""
    for _ in range(TRIES):
        ours, theirs = populated.ctl("events").splitlines(), kubectl("events").stdout.splitlines()
        if len(ours) == len(theirs):
            break
    assert ours[0] == theirs[0]
    assert sorted(map(ageless, ours)) == sorted(map(ageless, theirs))


def test_exec_ends_as_with_kubectl(populated: Any, kubectl: Callable[..., Any]) -> None:
    words = ("exec", "rc/web", "--", "python3", "-c", "print('x'); raise SystemExit(3)")
    ours, theirs = populated.run(*words), kubectl(*words)
    assert (ours.stdout, ours.stderr, ours.returncode) == (theirs.stdout, theirs.stderr, theirs.returncode)


def test_what_one_writes_the_other_reads(populated: Any, kubectl: Callable[..., Any], tmp_path: Path) -> None:
    manifest = tmp_path / "m.yaml"
    manifest.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shared}\ndata: {a: '1'}\n")
    assert kubectl("apply", "-f", str(manifest)).stdout == "configmap/shared created\n"
    assert populated.ctl("apply", "-f", str(manifest)) == "configmap/shared unchanged\n"
    manifest.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shared}\ndata: {b: '2'}\n")
    assert populated.ctl("apply", "-f", str(manifest)) == "configmap/shared configured\n"
    assert kubectl("get", "cm", "shared", "-o", "jsonpath={.data}").stdout == '{"b":"2"}'
    assert kubectl("apply", "-f", str(manifest)).stdout == "configmap/shared unchanged\n"
    assert populated.ctl("delete", "-f", str(manifest)).startswith('configmap "shared" deleted')
