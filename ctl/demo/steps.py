"""The story, a function per step. Each shows what a user would type, and checks what comes of it."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctl.demo import traces
from ctl.demo.stage import Stage, StepFailed, expect
from ctl.demo.terminal import Person
from ctl.demo.traffic import Traffic, hit
from ctl.lab import processes

PORT = 8080
EXAMPLE = (Path(__file__).parent / "kubia").resolve()
"""The app: ``examples/kubia`` of a checkout, which an installed package carries here."""


@dataclass(frozen=True)
class Step:
    """A title, and what is done."""

    title: str
    act: Callable[[Stage], None]


def base_image(stage: Stage) -> None:
    """1: an image out of the host's own interpreter: no internet is needed."""
    stage.ctl("image", "from-host", "python3", "--tag", "python:host")
    expect("python" in stage.ctl("image", "ls"), "'ctl image ls' does not list python:host")


def build(stage: Stage) -> None:
    """2: an image out of a Dockerfile."""
    here = EXAMPLE.relative_to(Path.cwd()) if EXAMPLE.is_relative_to(Path.cwd()) else EXAMPLE
    stage.prompt("cat", str(here / "Dockerfile"))
    stage.show((EXAMPLE / "Dockerfile").read_text())
    stage.ctl("image", "build", "-t", "kubia", str(here))
    expect("kubia" in stage.ctl("image", "ls"), "'ctl image ls' does not list kubia")


def up(stage: Stage) -> None:
    """3: eight processes, mutual TLS among them."""
    stage.ctl("up", *([f"--port-offset={stage.port_offset}"] if stage.port_offset else []))
    stage.ctl("status")
    expect("already up" in stage.ctl("up"), "a second 'ctl up' did not say that the cluster is already up")
    nodes = _objects(stage, "nodes")
    expect(len(nodes) == 1 and _condition(nodes[0], "Ready"), "the node is not Ready")


def push(stage: Stage) -> None:
    """4: the image to the registry, and off the node, so that the kubelet has to pull it."""
    image = _image(stage)
    stage.ctl("image", "tag", "kubia", image)
    stage.ctl("image", "push", image)
    stage.ctl("image", "rm", image, "kubia")
    expect(image.rpartition(":")[0] not in stage.ctl("image", "ls"), "the image is still on the node")


def run(stage: Stage) -> None:
    """5: three pods, kept alive by a ReplicationController."""
    stage.ctl("run", "kubia", f"--image={_image(stage)}", f"--port={PORT}", "--replicas=3")
    stage.ctl("wait", "rc/kubia", "--for=jsonpath={.status.readyReplicas}=3", "--timeout=90s")
    stage.ctl("get", "pods", "-o", "wide")
    pods = _objects(stage, "pods", "-l", "run=kubia")
    addresses = {pod["status"]["podIP"] for pod in pods}
    expect(len(addresses) == 3, f"three pods should have three addresses, they have {sorted(addresses)}")
    for pod in pods:
        answer = hit(pod["status"]["podIP"], PORT)
        expect(answer == f"You've hit {_name(pod)}", f"{_name(pod)} answers {answer!r}")
    events = stage.ctl("events", "--for", f"pod/{_name(pods[0])}")
    expect("Pulled" in events, "no event says that the kubelet pulled the image")
    stage.learn_marks()


def expose(stage: Stage) -> None:
    """6: one address in front of them, and different pods answering."""
    stage.ctl("expose", "rc", "kubia", "--type=LoadBalancer", "--name=kubia-http")
    stage.ctl("wait", "svc/kubia-http", "--for=jsonpath={.status.loadBalancer.ingress[0].ip}", "--timeout=30s")
    stage.ctl("get", "services")
    host = stage.ctl("get", "svc", "kubia-http", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}", shown=False)
    stage.notes["host"] = host
    seen = stage.until("the service answers from two pods", lambda: _two_pods(host), 20)
    for body in seen:
        stage.prompt("curl", f"http://{host}:{PORT}")
        stage.show(body)
    cluster_ip = stage.ctl("get", "svc", "kubia-http", "-o", "jsonpath={.spec.clusterIP}", shown=False)
    expect(hit(cluster_ip, PORT).startswith("You've hit"), f"the cluster IP {cluster_ip} does not answer")
    node_port = stage.ctl("get", "svc", "kubia-http", "-o", "jsonpath={.spec.ports[0].nodePort}", shown=False)
    expect(hit("127.0.0.1", int(node_port)).startswith("You've hit"), f"the node port {node_port} does not answer")
    stage.say(f"so do the cluster IP {cluster_ip}:{PORT} and the node port 127.0.0.1:{node_port}")


def _two_pods(host: str) -> list[str] | None:
    try:
        seen = [hit(host, PORT) for _ in range(8)]
    except OSError:
        return None
    return seen if len(set(seen)) >= 2 else None


def heal(stage: Stage) -> None:
    """7: a killed process is started again, a deleted pod replaced."""
    first, second, _ = sorted(_objects(stage, "pods", "-l", "run=kubia"), key=_name)
    pid = _pid_of(stage, first)
    stage.say(f"the process of pod {_name(first)} is {pid} on this machine")
    stage.prompt("kill", "-9", str(pid))
    os.kill(pid, signal.SIGKILL)
    stage.ctl("delete", "pod", _name(second))
    stage.until("three pods run again", lambda: _healed(stage, _name(first), _name(second)), 90)
    stage.learn_marks()
    stage.ctl("get", "pods")


def _healed(stage: Stage, killed: str, deleted: str) -> bool | None:
    pods = _objects(stage, "pods", "-l", "run=kubia")
    restarts = {_name(pod): _restarts(pod) for pod in pods if _condition(pod, "Ready")}
    return (len(restarts) == 3 and len(pods) == 3 and restarts.get(killed, 0) >= 1 and deleted not in restarts) or None


def scale_and_look(stage: Stage) -> None:
    """8: more, fewer, and every way to look."""
    stage.ctl("scale", "rc", "kubia", "--replicas=5")
    stage.ctl("wait", "rc/kubia", "--for=jsonpath={.status.readyReplicas}=5", "--timeout=90s")
    stage.ctl("get", "rc", "kubia")
    stage.learn_marks()
    stage.ctl("scale", "rc", "kubia", "--replicas=2")
    stage.until("two pods are left", lambda: len(_objects(stage, "pods", "-l", "run=kubia")) == 2 or None, 90)
    stage.ctl("get", "nodes,rc,services,pods")
    for what in ("nodes", "rc/kubia", "service/kubia-http"):
        stage.ctl("describe", what)
    found = sorted(_objects(stage, "pods", "-l", "run=kubia"), key=_name)[0]
    pod = _name(found)
    stage.ctl("describe", "pod", pod, lines=60)
    stage.ctl("cri", "pods")
    stage.ctl("cri", "ps")
    hit(found["status"]["podIP"], PORT)
    expect("Received request" in stage.ctl("logs", pod, "--tail=3"), f"the log of {pod} has no request in it")
    _terminal(stage, pod)


def _terminal(stage: Stage, pod: str) -> None:
    """A real terminal: the size is the window's, and follows it."""
    words = ("exec", "-it", pod, "--", "python3", "-q")
    stage.prompt("ctl", *words)
    with Person(stage.argv(*words), stage.environment, width=90) as person:
        person.read_until(">>> ")
        person.type("from os import *; uname().nodename, ttyname(0), get_terminal_size().columns\n")
        seen = person.read_until(r"\('([^']+)', '([^']+)', (\d+)\)")
        expect(seen[1] == pod and seen[3] == "90", f"expected to be in {pod} with 90 columns, saw {seen[0]}")
        person.read_until(">>> ")
        person.resize(132, 40)
        time.sleep(0.5)  # the size travels beside the keys, through three processes: nothing says that it arrived
        person.type("get_terminal_size().columns\n")
        expect(person.read_until(r"\n(\d+)\n")[1] == "132", "the terminal did not follow the window's new size")
        person.read_until(">>> ")
        person.type("raise SystemExit(7)\n")
        code = person.exit_code()
    stage.show(person.transcript)
    expect(code == 7, f"'ctl exec' should end with the command's exit code 7, ended with {code}")


def survive(stage: Stage) -> None:
    """9: kill -9 the runtime and the apiserver; nobody who uses the service notices."""
    with Traffic(stage.notes["host"], PORT) as traffic:
        expect(traffic.settle(20), "the service does not answer 20 requests in 10 s")
        for name in ("cri_runtime", "apiserver"):
            victim = processes.recorded(stage.layout.pid_file(name))
            if victim is None:
                raise StepFailed(f"{name} does not run")
            stage.say(f"{name} is process {victim.pid}")
            stage.prompt("kill", "-9", str(victim.pid))
            os.kill(victim.pid, signal.SIGKILL)
        stage.ctl("status", code=1)
        expect(traffic.settle(50), "the service stopped answering")
        stage.ctl("up")
        stage.ctl("scale", "rc", "kubia", "--replicas=3")
        stage.ctl("wait", "rc/kubia", "--for=jsonpath={.status.readyReplicas}=3", "--timeout=90s")
        expect(traffic.settle(20), "the service stopped answering")
    stage.ctl("get", "pods")
    stage.say(f"meanwhile: {sum(traffic.answers.values())} requests answered, {len(traffic.failures)} failed")
    for body, count in sorted(traffic.answers.items()):
        stage.say(f"  {count:5} x {body}")
    expect(not traffic.failures, f"requests failed: {'; '.join(traffic.failures[:3])}")


def leave_no_trace(before: traces.Traces) -> Callable[[Stage], None]:
    """10: down, and nothing is left but the state directory."""

    def act(stage: Stage) -> None:
        stage.learn_marks()
        during = traces.take(stage.state_dir).counts()
        stage.ctl("down")
        expect("nothing is running" in stage.ctl("down"), "a second 'ctl down' found something")
        after = traces.take(stage.state_dir)
        first, last = before.counts(), after.counts()
        stage.show(f"{'':20}{'before':>8}{'during':>8}{'after':>8}")
        for sort in traces.SORTS:
            stage.show(f"{sort:20}{first[sort]:8}{during[sort]:8}{last[sort]:8}")
        ours, others = traces.left_behind(before, after, stage.marks, stage.strict)
        for line in traces.summary(others, 3):
            stage.say(f"new meanwhile, not this cluster's: {line}")
        expect(not ours, "left behind: " + "; ".join(traces.summary(ours, 20)))
        stage.say(f"nothing is left outside {stage.state_dir}")

    return act


def story(before: traces.Traces) -> Sequence[Step]:
    """The ten steps. ``before``: the machine as it was."""
    return (
        Step("a base image from this host's own Python", base_image),
        Step("build an image from a Dockerfile", build),
        Step("bring the cluster up", up),
        Step("push the image to the cluster's registry", push),
        Step("run it three times", run),
        Step("put a load balancer in front", expose),
        Step("kill a process, delete a pod: it heals", heal),
        Step("scale up and down, look from every side", scale_and_look),
        Step("kill -9 the runtime and the apiserver: the service goes on", survive),
        Step("take everything down: nothing is left", leave_no_trace(before)),
    )


# --- looking -------------------------------------------------------------------------------------------------------


def _image(stage: Stage) -> str:
    return f"{stage.settings.address('registry')}/kubia:latest"


def _objects(stage: Stage, *words: str) -> list[dict[str, Any]]:
    return list(json.loads(stage.ctl("get", *words, "-o", "json", shown=False))["items"])


def _name(obj: dict[str, Any]) -> str:
    return str(obj["metadata"]["name"])


def _condition(obj: dict[str, Any], name: str) -> bool:
    conditions = obj.get("status", {}).get("conditions", ())
    return any(each["type"] == name and each["status"] == "True" for each in conditions)


def _restarts(pod: dict[str, Any]) -> int:
    return sum(each["restartCount"] for each in pod["status"].get("containerStatuses", ()))


def _pid_of(stage: Stage, pod: dict[str, Any]) -> int:
    """The host's pid of a pod's process, from the node runtime."""
    container = pod["status"]["containerStatuses"][0]["containerID"].rpartition("//")[2]
    found = re.search(r'"pid":\s*(\d+)', stage.ctl("cri", "inspect", container, shown=False))
    if found is None:
        raise StepFailed(f"'ctl cri inspect {container}' shows no pid")
    return int(found[1])
