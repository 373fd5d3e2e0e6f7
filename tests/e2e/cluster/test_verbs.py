"""Verbs against a real cluster: what a user does after the demo."""

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

SERVER = "import http.server as h; h.ThreadingHTTPServer(('', 8000), h.SimpleHTTPRequestHandler).serve_forever()"


@pytest.fixture(scope="module")
def web(cluster: Any) -> Iterator[str]:
    """A pod that serves its root directory on port 8000."""
    image = ["--image=python:host", "--image-pull-policy=Never"]
    cluster.ctl("run", "web", *image, "--port=8000", "--restart=Never", "--command", "--", "python3", "-c", SERVER)
    cluster.ctl("wait", "pod/web", "--for=condition=Ready", "--timeout=60s")
    yield "web"
    cluster.ctl("delete", "pod", "web", "--now")


def test_a_second_up_says_so_and_changes_nothing(cluster: Any) -> None:
    before = cluster.pid("apiserver")
    assert "already up" in cluster.up()
    assert cluster.pid("apiserver") == before


def test_every_component_is_healthy(cluster: Any) -> None:
    lines = cluster.ctl("status").splitlines()
    assert len(lines) == 9 and all("Healthy" in line for line in lines[1:])


def test_the_node_is_ready_and_described(cluster: Any) -> None:
    [node] = cluster.get("nodes")["items"]
    text = cluster.ctl("describe", "node", node["metadata"]["name"])
    assert "Non-terminated Pods:" in text and "KubeletReady" in text


def test_exec_gives_the_commands_exit_code_and_streams(cluster: Any, web: str) -> None:
    script = "import sys; print(sys.stdin.read().upper()); print('e', file=sys.stderr); sys.exit(3)"
    done = cluster.run("exec", "-i", web, "--", "python3", "-c", script, stdin="hello")
    assert (done.returncode, done.stdout) == (3, "HELLO\n")
    assert done.stderr == "e\ncommand terminated with exit code 3\n"


def test_exec_of_a_missing_program_fails_and_says_so(cluster: Any, web: str) -> None:
    done = cluster.run("exec", web, "--", "/no/such/program")
    assert done.returncode not in (0, None) and "/no/such/program" in done.stderr


def test_logs_show_what_was_written_and_follow(cluster: Any) -> None:
    script = "import time; print('one', flush=True); time.sleep(1); print('two', flush=True)"
    image = ["--image=python:host", "--image-pull-policy=Never"]
    cluster.ctl("run", "talk", *image, "--restart=Never", "--command", "--", "python3", "-c", script)
    cluster.ctl("wait", "pod/talk", "--for=jsonpath={.status.containerStatuses[0].state.*.startedAt}", "--timeout=60s")
    assert cluster.ctl("logs", "-f", "talk") == "one\ntwo\n"
    assert cluster.ctl("logs", "talk", "--tail=1") == "two\n"
    cluster.ctl("wait", "pod/talk", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s")
    assert "Completed" in cluster.ctl("get", "pod", "talk")
    cluster.ctl("delete", "pod", "talk")


def test_port_forward_reaches_the_pod(cluster: Any, web: str) -> None:
    environment = {**os.environ, "KNARR_STATE_DIR": str(cluster.state_dir), "PYTHONUNBUFFERED": "1"}
    words = [sys.executable, "-m", "ctl", "port-forward", web, ":8000"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as forward:
        try:
            assert forward.stdout is not None
            port = int(forward.stdout.readline().split()[2].rpartition(":")[2])
            for _ in range(3):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                connection.request("GET", "/")
                assert connection.getresponse().status == 200
                connection.close()
        finally:
            forward.send_signal(signal.SIGINT)
    assert forward.returncode == 130


def test_an_image_that_does_not_exist_is_told(cluster: Any, eventually: Callable[..., Any]) -> None:
    name = f"127.0.0.1:{5000 + cluster.port_offset}/no-such-image"
    cluster.ctl("run", "lost", f"--image={name}", "--restart=Never")
    waiting = ("ErrImagePull", "ImagePullBackOff")
    eventually(lambda: any(w in cluster.ctl("get", "pod", "lost") for w in waiting) or None, "the pod waits")
    assert "no-such-image" in cluster.ctl("describe", "pod", "lost")
    cluster.ctl("delete", "pod", "lost", "--now")


def test_a_manifest_with_a_wrong_field_stores_nothing(cluster: Any) -> None:
    manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: wrong}\nspec: {containers: [{name: a, imag: x}]}\n"
    done = cluster.run("apply", "-f", "-", stdin=manifest)
    assert done.returncode == 1 and "spec.containers[0].imag: unknown field" in done.stderr
    assert 'pods "wrong" not found' in cluster.run("get", "pod", "wrong").stderr


def test_watch_shows_changes_as_they_come(cluster: Any) -> None:
    environment = {**os.environ, "KNARR_STATE_DIR": str(cluster.state_dir), "PYTHONUNBUFFERED": "1"}
    words = [sys.executable, "-m", "ctl", "get", "configmaps", "-w"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        cluster.ctl("create", "configmap", "first", "--from-literal=a=b")
        assert "NAME" in watch.stdout.readline()
        assert watch.stdout.readline().startswith("first")
        watch.send_signal(signal.SIGINT)
    assert watch.returncode == 130
    cluster.ctl("delete", "configmap", "first")


def test_cordon_keeps_pods_off_the_node(cluster: Any, eventually: Callable[..., Any]) -> None:
    node = cluster.get("nodes")["items"][0]["metadata"]["name"]
    assert cluster.ctl("cordon", node) == f"node/{node} cordoned\n"
    assert "SchedulingDisabled" in cluster.ctl("get", "nodes")
    cluster.ctl("run", "waits", "--image=python:host", "--image-pull-policy=Never", "--restart=Never")
    eventually(lambda: "FailedScheduling" in cluster.ctl("events", "--for", "pod/waits") or None, "an event says why")
    cluster.ctl("uncordon", node)
    scheduled = "--for=condition=PodScheduled"
    cluster.ctl("wait", "pod/waits", scheduled, "--timeout=30s")
    cluster.ctl("delete", "pod", "waits", "--now")
