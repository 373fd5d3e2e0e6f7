"""Each verb on real containers."""

import io
import json
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

B = ("busybox", "busybox")
SLEEP = (*B, "sleep", "1000")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((*B, "sh", "-c", "exit 7"), 7, ""),
        ((*B, "sh", "-c", "busybox sh -c 'kill -9 $$'; exit $?"), 137, ""),
        (("busybox", "nosuch"), 127, "nosuch"),
        (("busybox", "/etc"), 126, "Permission denied"),
        (("--bad", "busybox"), 125, "No such option"),
        (("--pull=never", "nowhere"), 125, "No such image: nowhere"),
        (("--restart=always", "busybox"), 125, "no daemon of ours watches containers"),
        (("--network=none", "busybox"), 125, "--network none is not supported"),
        (("--memory=1k", "busybox"), 125, "Minimum memory limit allowed is 6MB"),
        (("-it", *B, "sh"), 125, "the input device is not a TTY"),
    ],
)
def test_exit_codes(node: Any, words: tuple[str, ...], code: int, says: str) -> None:
    done = node.run("container", "run", "--rm", *words)
    assert done.returncode == code and says in done.stderr


def test_output_is_complete_and_apart(node: Any) -> None:
    script = r"i=0; while [ $i -lt 20000 ]; do echo line$i; i=$((i+1)); done; printf 'no newline'; echo oops >&2"
    done = node.run("container", "run", "--rm", *B, "sh", "-c", script)
    assert done.stdout == "".join(f"line{i}\n" for i in range(20000)) + "no newline"
    assert done.stderr == "oops\n"


def test_input_to_its_end(node: Any) -> None:
    text = "".join(f"line {number}\n" for number in range(5000))
    assert node.container("run", "--rm", "-i", *B, "cat", input=text) == text


def test_a_terminal_and_the_detach_keys(node: Any, terminal: Any) -> None:
    with terminal(*node.flags, "container", "run", "--name", "term", "-it", *B, "sh") as user:
        user.until(b"# ")  # the prompt, which comes before anybody could have attached
        user.type(b"busybox tty; echo pid=$$\r")
        user.until(b"/dev/pts/0")
        user.until(b"pid=1\r\n")
        user.type(b"\x10\x11")
        assert user.end() == 0
    assert node.container("ps", "--format", "{{.Names}} {{.State}}") == "term running\n"


def test_signals_are_passed_on(node: Any, eventually: Callable[..., Any]) -> None:
    script = "trap 'echo got it; exit 5' TERM; echo ready; while :; do busybox sleep 0.05; done"
    command = [sys.executable, "-m", "ctl", *node.flags, "container", "run", "--rm", *B, "sh", "-c", script]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.read() == "got it\n"
    assert process.wait(20) == 5
    process.stdout.close()


def test_what_docker_flags_do_inside(node: Any, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# comment\nFROM_FILE=1\n")
    (tmp_path / "host").mkdir()
    script = (
        "echo $A $FROM_FILE; busybox id -u; busybox pwd; busybox hostname; busybox touch /bound/x || true;"
        "busybox touch /x || echo read-only; busybox grep -c /scratch /proc/mounts;"
        "busybox grep NoNewPrivs /proc/self/status"
    )
    words = (
        *("-e", "A=b", "--env-file", str(tmp_path / "env"), "--user", "12:34", "-w", "/scratch", "--hostname", "me"),
        *("--read-only", "--tmpfs", "/scratch:size=1m", "-v", f"{tmp_path / 'host'}:/bound:ro", "--memory", "64m"),
        *("--mount", f"type=bind,src={tmp_path},dst=/deep/er,readonly", "--security-opt", "no-new-privileges"),
        *("--cap-drop", "ALL", "--label", "k=v", "--cpus", "0.5", "--name", "full"),
    )
    said = node.container("run", *words, *B, "sh", "-c", script).splitlines()
    assert said == ["b 1", "12", "/scratch", "me", "read-only", "1", "NoNewPrivs:\t1"]
    [found] = json.loads(node.container("inspect", "full"))
    assert found["HostConfig"]["Memory"] == 64 << 20 and found["HostConfig"]["NanoCpus"] == 500_000_000
    assert found["Config"]["Labels"] == {"k": "v"} and found["Config"]["User"] == "12:34"
    assert {mount["Destination"] for mount in found["Mounts"]} == {"/scratch", "/bound", "/deep/er"}
    assert node.container("ps", "-aq", "--filter", "label=k=v", "--filter", "exited=0").strip() == found["Id"][:12]


def test_start_goes_on_with_the_layer_and_the_log(node: Any) -> None:
    script = "echo run >>/count; busybox wc -l </count"
    assert node.container("run", "--name", "again", *B, "sh", "-c", script).strip() == "1"
    identity = node.container("inspect", "-f", "{{.Id}}", "again")
    assert node.container("start", "-a", "again").strip() == "2"
    node.container("start", "again")
    assert node.container("wait", "again") == "0\n"
    assert node.container("logs", "again").split() == ["1", "2", "3"]
    assert node.container("logs", "--tail", "1", "again").split() == ["3"]
    assert node.container("inspect", "-f", "{{.Id}}", "again") == identity
    assert node.container("diff", "again") == "A /count\n"


def test_names_and_prefixes(node: Any) -> None:
    first = node.container("create", "--name", "one", *SLEEP).strip()
    done = node.run("container", "create", "--name", "one", *SLEEP)
    assert done.returncode == 1 and f'The container name "/one" is already in use by container "{first}"' in done.stderr
    assert node.container("inspect", "-f", "{{.Name}}", first[:6]) == "/one\n"
    assert "No such container: two" in node.run("container", "stop", "two").stderr
    assert "Created" in node.container("ps", "-a")


def test_a_port_can_be_had_once(node: Any, free_port: int) -> None:
    node.container("run", "-d", "--name", "first", "-p", f"{free_port}:80", *SLEEP)
    done = node.run("container", "run", "-d", "-p", f"{free_port}:80", *SLEEP)
    assert done.returncode == 125 and str(free_port) in done.stderr
    assert node.container("port", "first", "80") == f"0.0.0.0:{free_port}\n"
    node.container("kill", "first")
    node.container("run", "-d", "--name", "second", "-p", f"{free_port}:80", *SLEEP)


def test_exec(node: Any) -> None:
    node.container("run", "-d", "--name", "box", *SLEEP)
    assert node.container("exec", "-i", "box", "busybox", "cat", input="in and out") == "in and out"
    assert node.run("container", "exec", "box", "busybox", "sh", "-c", "exit 9").returncode == 9
    assert node.run("container", "exec", "box", "nosuch").returncode == 127
    node.container("stop", "-t", "0", "box")
    done = node.run("container", "exec", "box", "busybox", "true")
    assert done.returncode == 1 and "is not running" in done.stderr


def test_rm_refuses_what_runs(node: Any) -> None:
    node.container("run", "-d", "--name", "box", *SLEEP)
    assert "container is running" in node.run("container", "rm", "box").stderr
    assert node.container("rm", "-f", "box") == "box\n"
    assert node.container("ps", "-aq") == ""


def test_top_and_stats(node: Any) -> None:
    node.container("run", "-d", "--name", "box", *SLEEP)
    pid = node.container("inspect", "-f", "{{.State.Pid}}", "box").strip()
    header, row = node.container("top", "box").splitlines()
    assert header.split()[:3] == ["UID", "PID", "PPID"] and row.split()[1] == pid and row.endswith("busybox sleep 1000")
    stats = json.loads(node.container("stats", "--no-stream", "--format", "json"))
    assert stats["Name"] == "box" and stats["PIDs"] == "1" and stats["MemUsage"].endswith("GiB")


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_cp_both_ways_without_tar(node: Any, tmp_path: Path, running: bool) -> None:
    node.container(
        "run", "-d", "--name", "box", *B, "sh", "-c", "busybox mkdir /d; echo old >/d/f; exec busybox sleep 1000"
    )
    (tmp_path / "new").write_text("new\n")
    node.container("exec", "box", "busybox", "ln", "-s", str(tmp_path), "/escape")
    if not running:
        node.container("kill", "box")
    node.container("cp", "box:/d/f", str(tmp_path))
    assert (tmp_path / "f").read_text() == "old\n"
    node.container("cp", "box:/d", str(tmp_path / "copied"))
    assert (tmp_path / "copied/f").read_text() == "old\n"
    node.container("cp", str(tmp_path / "new"), "box:/d/")
    node.container("cp", "box:/d/new", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "new\n"
    # A link of the container's that names a place of ours leads nowhere of ours.
    node.run("container", "cp", str(tmp_path / "new"), "box:/escape/planted")
    assert not (tmp_path / "planted").exists()
    for words in (("box:/nosuch", str(tmp_path)), (str(tmp_path / "new"), "box:/no/such/place")):
        assert node.run("container", "cp", *words).returncode == 1
    assert "A /d/new" in node.container("diff", "box").splitlines()


def test_cp_as_an_archive(node: Any, tmp_path: Path) -> None:
    node.container("create", "--name", "box", *SLEEP)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("etc/app.conf")
        member.size = 2
        archive.addfile(member, io.BytesIO(b"hi"))
    command = [sys.executable, "-m", "ctl", *node.flags, "container", "cp"]
    subprocess.run([*command, "-", "box:/"], input=packed.getvalue(), check=True, timeout=30)
    done = subprocess.run([*command, "box:/etc/app.conf", "-"], capture_output=True, check=True, timeout=30)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert archive.getnames() == ["app.conf"]


def test_what_ended_unseen_is_tidied(node: Any, eventually: Callable[..., Any]) -> None:
    node.container("run", "-d", "--rm", "--name", "gone", *B, "true")
    eventually(lambda: node.container("ps", "-aq") == "")
