"""The session with which books on Kubernetes begin, line by line, without docker and without the internet."""

import json
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

KUBIA = Path(__file__).parents[3] / "examples" / "kubia"


def get(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://localhost:{port}", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_the_session(
    node: Any,
    other_node: Any,
    registry: str,
    free_port: int,
    tmp_path: Path,
    terminal: Any,
    eventually: Callable[..., Any],
) -> None:
    assert node.container("run", "busybox", "busybox", "echo", "hello world") == "hello world\n"

    context = shutil.copytree(KUBIA, tmp_path / "kubia")
    assert "Successfully tagged kubia:latest" in node.ctl("image", "build", "-t", "kubia", str(context))
    history = node.ctl("image", "history", "kubia")
    assert "ENTRYPOINT" in history and "app.py" in history

    container_id = node.container("run", "--name", "kubia", "-p", f"{free_port}:8080", "-d", "kubia").strip()
    assert eventually(lambda: get(free_port)) == f"You've hit {container_id[:12]}\n"

    header, row, *rest = node.container("ps").splitlines()
    assert header.split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert row.startswith(container_id[:12]) and row.endswith("kubia") and not rest
    assert f"0.0.0.0:{free_port}->8080/tcp" in row and '"python3 /app.py"' in row and " Up " in row

    [inspected] = json.loads(node.container("inspect", "kubia"))
    assert inspected["Id"] == container_id and inspected["State"]["Status"] == "running"
    assert inspected["NetworkSettings"]["IPAddress"].startswith("10.240.")

    with terminal(*node.flags, "container", "exec", "-it", "kubia", "bash") as user:
        user.until(b"# ")
        user.type(b"busybox ps; echo at $HOSTNAME; exit 3\r")
        user.until(b"at " + container_id[:12].encode())
        assert user.end() == 3
    listed = [line.split() for line in user.said.decode().splitlines() if "python3 /app.py" in line]
    assert [words[0] for words in listed] == ["1"]
    outside = inspected["State"]["Pid"]
    assert outside != 1 and b"/app.py" in Path(f"/proc/{outside}/cmdline").read_bytes()

    assert node.container("stop", "kubia") == "kubia\n"
    assert get(free_port) == ""
    assert "kubia" not in node.container("ps")
    assert "Exited (" in next(line for line in node.container("ps", "-a").splitlines() if line.endswith("kubia"))
    assert node.container("rm", "kubia") == "kubia\n"

    pushed = f"{registry}/luksa/kubia"
    node.ctl("image", "tag", "kubia", pushed)
    assert "digest: sha256:" in node.ctl("image", "push", pushed)

    moved = other_node.run("container", "run", "-p", f"{free_port}:8080", "-d", pushed)
    assert moved.returncode == 0, moved.stderr
    assert f"Unable to find image '{pushed}" in moved.stderr
    assert eventually(lambda: get(free_port)) == f"You've hit {moved.stdout[:12]}\n"
