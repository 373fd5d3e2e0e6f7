"""Every command on containerd and on knarr: what crictl prints there, ``ctl cri`` prints too."""

import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.root
Ctl = Callable[..., Any]


def test_version(ctl: Ctl, runtime: str) -> None:
    assert re.search(f"^RuntimeName: {runtime}$", ctl("version").stdout, re.MULTILINE)


def test_info_has_both_conditions_and_the_runtimes_own_facts(ctl: Ctl) -> None:
    info = json.loads(ctl("info").stdout)
    assert {c["type"]: c["status"] for c in info["status"]["conditions"]} == {
        "RuntimeReady": True,
        "NetworkReady": True,
    }
    assert "config" in info
    assert "config" not in json.loads(ctl("info", "-q").stdout)


def test_images_in_every_form(ctl: Ctl, containerd_module: Any) -> None:
    table = ctl("images").stdout.splitlines()
    assert table[0].split() == ["IMAGE", "TAG", "IMAGE", "ID", "SIZE"]
    repository, tag = containerd_module.TEST_IMAGE.rsplit(":", 1)
    row = next(line for line in table if line.startswith(repository)).split()
    assert (row[1], len(row[2])) == (tag, 13)
    image = json.loads(ctl("inspecti", containerd_module.TEST_IMAGE).stdout)["status"]
    assert image["id"].removeprefix("sha256:").startswith(row[2])
    assert image["id"] in ctl("images", "-q").stdout.split()
    assert image["id"] in {i["id"] for i in yaml.safe_load(ctl("images", "-o", "yaml").stdout)["images"]}
    assert "no such image" in ctl("inspecti", "nowhere:1", code=1).stderr


def test_pods_lists_what_runp_made(ctl: Ctl, pod: str) -> None:
    header, row = ctl("pods", "--name", "^web$").stdout.splitlines()
    assert re.split(r"\s{2,}", header) == ["POD ID", "CREATED", "STATE", "NAME", "NAMESPACE", "ATTEMPT", "RUNTIME"]
    assert row.split()[0] == pod[:13]
    assert header.index("CREATED") == 20
    assert ctl("pods", "-q", "--label", "app=web").stdout.split() == [pod]
    assert ctl("pods", "-q", "--label", "app=other").stdout == ""
    assert ctl("pods", "-q", "-s", "notready").stdout == ""
    assert json.loads(ctl("pods", "-o", "json").stdout)["items"][0]["state"] == "SANDBOX_READY"


def test_inspectp_shows_status_and_info(ctl: Ctl, pod: str) -> None:
    shown = json.loads(ctl("inspectp", pod).stdout)
    assert (shown["status"]["id"], shown["status"]["metadata"]["name"]) == (pod, "web")
    assert "info" in shown
    assert re.search(r"^Name: web$", ctl("inspectp", "-o", "table", pod[:13]).stdout, re.MULTILINE)


def test_ps_shows_running_ones_and_more_when_asked(ctl: Ctl, container: str, pod: str) -> None:
    header, row = ctl("ps").stdout.splitlines()
    assert re.split(r"\s{2,}", header) == [
        *("CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT", "POD ID", "POD", "NAMESPACE")
    ]
    cells = re.split(r"\s{2,}", row)
    assert (cells[0], cells[3:]) == (container[:13], ["Running", "main", "0", pod[:13], "web", "default"])
    assert ctl("ps", "-q", "-s", "exited").stdout == ""
    assert ctl("ps", "-q", "-p", pod).stdout.split() == [container]
    assert json.loads(ctl("ps", "-o", "json").stdout)["containers"][0]["id"] == container


def test_inspect_writes_times_as_people_do(ctl: Ctl, container: str) -> None:
    status = json.loads(ctl("inspect", container).stdout)["status"]
    assert status["state"] == "CONTAINER_RUNNING"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", status["startedAt"])
    assert status["finishedAt"] == "0001-01-01T00:00:00Z"


def test_logs_come_from_both_streams(ctl: Ctl, container: str) -> None:
    done = ctl("logs", container)
    assert (done.stdout, done.stderr) == ("hello wörld\n", "oops\n")
    assert re.fullmatch(r"\S+T\S+ oops\n", ctl("logs", "-t", "-s", "stderr", container).stderr)
    assert ctl("logs", "--tail", "0", container).stdout == ""
    assert ctl("logs", "--since", "2100-01-01T00:00:00Z", container).stdout == ""


def test_exec_gives_outputs_and_the_exit_code(ctl: Ctl, container: str) -> None:
    done = ctl("exec", container, "sh", "-c", "echo out; echo err >&2; exit 5", code=5)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    assert ctl("exec", "-i", container, "head", "-n1", input="line\nmore\n").stdout == "line\n"
    assert ctl("exec", "--sync", container, "sh", "-c", "echo sync; exit 4", code=4).stdout == "sync\n"
    assert ctl("exec", "--name", "^main$", "echo", "chosen").stdout == "chosen\n"


def test_exec_needs_a_terminal_for_it(ctl: Ctl, container: str) -> None:
    assert "needs a terminal" in ctl("exec", "-it", container, "true", code=1).stderr


def test_exec_on_a_terminal_passes_size_and_keys(argv: list[str], container: str) -> None:
    keyboard, terminal = pty.openpty()
    fcntl.ioctl(keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", 37, 101, 0, 0))
    before = termios.tcgetattr(terminal)
    sized = 'until [ "$(stty size)" = "37 101" ]; do sleep 0.05; done'
    shell = f'{sized}; trap "echo caught" INT; echo ready; read line; echo "<$line>"; exit 6'
    process = subprocess.Popen(
        [*argv, "exec", "-it", container, "sh", "-c", shell], stdin=terminal, stdout=terminal, stderr=terminal
    )
    seen = b""
    while b"ready" not in seen:
        seen += os.read(keyboard, 4096)
    os.write(keyboard, b"\x03typed\r")  # Ctrl-C goes to the shell inside, not to ctl
    while b"<typed>" not in seen:
        seen += os.read(keyboard, 4096)
    assert process.wait(20) == 6
    assert b"caught" in seen
    assert termios.tcgetattr(terminal) == before
    os.close(keyboard)
    os.close(terminal)


def test_stats_and_imagefsinfo(ctl: Ctl, container: str) -> None:
    header, row = ctl("stats", "-s", "0.2", code=None).stdout.splitlines() or ["", ""]
    if header:  # containerd samples cgroups when asked; a busy machine may tell "not updated"
        assert re.split(r"\s{2,}", header) == ["CONTAINER", "NAME", "CPU %", "MEM", "DISK", "INODES", "SWAP"]
        assert row.split()[:2] == [container[:13], "main"]
    assert json.loads(ctl("stats", "-o", "json").stdout)["stats"][0]["attributes"]["id"] == container
    assert json.loads(ctl("imagefsinfo").stdout)["status"]["imageFilesystems"]


def test_attach_takes_what_comes_from_now_on(ctl: Ctl, argv: list[str], configs: Path, pod: str) -> None:
    config = configs / "echo.yaml"
    config.write_text(
        (configs / "ctr.yaml").read_text().replace("name: main", "name: echo").replace("main/0", "main/1")
        + "stdin: true\nstdin_once: true\n"
    )
    text = config.read_text().splitlines()
    config.write_text("\n".join('command: ["cat"]' if line.startswith("command") else line for line in text))
    made = ctl("create", pod, str(config), str(configs / "pod.json")).stdout.strip()
    ctl("start", made)
    process = subprocess.Popen([*argv, "attach", "-i", made], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"attached\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"attached\n"
    ctl("stop", made)
    process.communicate(timeout=20)
    ctl("rm", made)


def test_port_forward_reaches_the_pods_localhost(argv: list[str], container: str, pod: str) -> None:
    script = (
        "import socket; server = socket.create_server(('127.0.0.1', 7777)); print('up', flush=True); "
        "client, _ = server.accept(); client.sendall(client.recv(100)[::-1])"
    )
    serving = subprocess.Popen([*argv, "exec", container, "python3", "-c", script], stdout=subprocess.PIPE)
    forwarding = subprocess.Popen([*argv, "port-forward", pod, ":7777"], stdout=subprocess.PIPE)
    assert serving.stdout is not None and forwarding.stdout is not None
    assert serving.stdout.readline() == b"up\n"
    port = int(forwarding.stdout.readline().decode().split(" -> ")[0].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"abc")
        assert client.recv(100) == b"cba"
    assert serving.wait(20) == 0
    forwarding.send_signal(signal.SIGINT)
    forwarding.communicate(timeout=20)


def test_port_forward_tells_what_the_pod_says(argv: list[str], pod: str) -> None:
    process = subprocess.Popen([*argv, "port-forward", pod, ":1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    line = process.stdout.readline().decode()
    port = int(re.fullmatch(r"Forwarding from 127.0.0.1:(\d+) -> 1\n", line)[1])  # type: ignore[index]
    with socket.create_connection(("127.0.0.1", port)) as client:
        assert client.recv(100) == b""
    assert b"port 1" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130


def test_update(ctl: Ctl, container: str) -> None:
    ctl("update", "--memory", "200000000", container)
    resources = json.loads(ctl("inspect", container).stdout)["status"]["resources"]["linux"]
    assert resources["memoryLimitInBytes"] == "200000000"


def test_what_the_runtime_lacks_is_said(ctl: Ctl, runtime: str) -> None:
    if runtime == "knarr":
        assert ctl("runtime-config").stdout.split() == ["cgroup", "driver:", "CGROUPFS"]
    else:  # containerd 1.6
        assert "does not offer this" in ctl("runtime-config", code=1).stderr


def test_running_things_are_not_removed_by_accident(ctl: Ctl, configs: Path) -> None:
    made = ctl("run", str(configs / "run.yaml"), str(configs / "run.json"), code=1)
    assert "not found" in made.stderr
    (configs / "run.json").write_text((configs / "pod.json").read_text().replace('"web"', '"other"'))
    (configs / "run.yaml").write_text((configs / "ctr.yaml").read_text().replace("main/0", "main/2"))
    container = ctl("run", str(configs / "run.yaml"), str(configs / "run.json")).stdout.strip()
    pod = json.loads(ctl("ps", "--id", container, "-o", "json").stdout)["containers"][0]["podSandboxId"]
    assert "please stop it first" in ctl("rm", container, code=1).stderr
    assert "please stop it first" in ctl("rmp", pod, code=1).stderr
    assert ctl("stop", container).stdout.strip() == container
    assert "Exited" in ctl("ps", "-a", "--id", container).stdout
    assert ctl("rm", container).stdout.strip() == container
    assert not (configs / "logs/main/2.log").exists()
    assert ctl("rmp", "-f", pod).stdout.split("\n")[:2] == [f"Stopped sandbox {pod}", f"Removed sandbox {pod}"]
    assert ctl("pods", "-q", "--id", pod).stdout == ""


def test_an_unknown_id_is_an_error(ctl: Ctl) -> None:
    for command in ("inspect", "inspectp", "start", "logs"):
        assert re.search("no-such-id.*(not found|does not exist)", ctl(command, "no-such-id", code=1).stderr)
    assert ctl("exec", "no-such-id", "true", code=1).stderr.startswith("error: executing command")


def test_logs_follows_to_the_containers_end_over_rotations(
    ctl: Ctl, argv: list[str], configs: Path, pod: str, runtime: str
) -> None:
    text = (configs / "ctr.yaml").read_text().splitlines()
    counting = 'command: [sh, -c, "read go; echo before; read go; echo after"]'
    text = [counting if line.startswith("command") else line for line in text]
    config = configs / "count.yaml"
    config.write_text("\n".join(text).replace("name: main", "name: count").replace("main/0", "count.log"))
    config.write_text(config.read_text() + "\nstdin: true\nstdin_once: true\n")
    made = ctl("create", pod, str(config), str(configs / "pod.json")).stdout.strip()
    ctl("start", made)
    log = Path(json.loads(ctl("inspect", made).stdout)["status"]["logPath"])
    following = subprocess.Popen([*argv, "logs", "-f", made], stdout=subprocess.PIPE)
    assert following.stdout is not None
    attached = subprocess.Popen([*argv, "attach", "-i", made], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert attached.stdin is not None
    attached.stdin.write(b"go\n")
    attached.stdin.flush()
    assert following.stdout.readline() == b"before\n"
    log.rename(log.with_suffix(".1"))
    ctl("logs", "--reopen", made)
    attached.stdin.write(b"go\n")
    attached.stdin.flush()
    assert following.wait(20) == 0
    assert following.stdout.read() == b"after\n"
    attached.communicate(timeout=20)
    ctl("rm", made)


def test_events_tell_what_happens(ctl: Ctl, argv: list[str], configs: Path, runtime: str) -> None:
    if runtime == "containerd":
        assert "does not offer this" in ctl("events", code=1).stderr
        return
    process = subprocess.Popen([*argv, "events"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    seen = b""
    config = configs / "seen.json"
    config.write_text((configs / "pod.json").read_text().replace('"web"', '"seen"'))
    while b"CONTAINER_DELETED_EVENT" not in seen:
        pod = ctl("runp", str(config)).stdout.strip()  # again, until the stream is open: there is no replay
        ctl("rmp", "-f", pod)
        os.set_blocking(process.stdout.fileno(), False)
        seen += process.stdout.read() or b""
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert b'"name": "seen"' in seen
