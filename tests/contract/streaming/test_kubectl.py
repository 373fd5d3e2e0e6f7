"""kubectl's exec, attach and port-forward, each over WebSocket and SPDY, straight onto our stream protocols.

A stand-in for the apiserver answers kubectl's discovery and hands its upgrades to the code that the streaming server
runs: kubectl is the only widely packaged client of SPDY/3.1 as Kubernetes speaks it.
"""

import asyncio
import fcntl
import json
import os
import pty
import shutil
import signal
import struct
import termios
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from cri_runtime.service.streams.http import HEAD_BYTES, Request, parse_head, response
from cri_runtime.service.streams.upgrade import Command, Connection, Forward

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "default", "uid": "1"},
    "spec": {"containers": [{"name": "c", "stdin": True, "image": "i"}]},
    "status": {"phase": "Running"},
}
ANSWERS: dict[str, Any] = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [
            {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["get", "list"]},
        ],
    },
    "/api/v1/namespaces/default/pods/p": POD,
}

SPDY = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}
both = pytest.mark.parametrize("transport", [{}, SPDY], ids=["websocket", "spdy"])


class Cluster:
    """A pod that lives in this process."""

    def __init__(self, sessions: list[Any], make: Callable[..., Any], dial: Callable[[int], Awaitable[Any]]) -> None:
        self.sessions = sessions
        self.make = make
        self.dial = dial
        self.upgrades: list[str] = []
        self.opened: asyncio.Queue[Any] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        target = urlsplit(head.split(b" ")[1].decode())
        try:
            await self.answer(parse_head(head), target.path, parse_qs(target.query), reader, writer)
        finally:
            writer.close()

    async def answer(
        self,
        request: Request,
        path: str,
        query: dict[str, list[str]],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if path in ANSWERS:
            body = response(200, body=json.dumps(ANSWERS[path])).replace(b"text/plain", b"application/json")
            writer.write(body)
            return
        verb = path.rpartition("/")[2]
        if verb not in ("exec", "attach", "portforward"):
            writer.write(response(404))
            return
        async with asyncio.timeout(None) as idle:
            connection = Connection(request, reader, writer, idle)
            self.upgrades.append(request.value("sec-websocket-protocol") or request.value("upgrade"))
            if verb == "portforward":
                await connection.serve_forward(Forward(self.dial, ()))
            else:
                await connection.serve_command(self.command(query))

    def command(self, query: dict[str, list[str]]) -> Command:
        def asked(name: str) -> bool:
            return query.get(name) in (["true"], ["1"])

        async def opener() -> Any:
            argv = query.get("command", ["sh", "-c", "read line; echo attached $line"])
            self.sessions.append(self.make(argv, asked("tty"), asked("stdin")))
            self.opened.put_nowait(self.sessions[-1])
            return self.sessions[-1]

        return Command(opener, asked("tty"), asked("stdin"), asked("stdout"), asked("stderr"))


@pytest.fixture
async def cluster(sessions: list[Any], make_session: Callable[..., Any], dial: Any) -> Cluster:
    return Cluster(sessions, make_session, dial)


@pytest.fixture
async def kubectl(
    cluster: Cluster, tmp_path: Path
) -> AsyncIterator[Callable[..., Awaitable[asyncio.subprocess.Process]]]:
    """Starts kubectl against the stand-in."""
    async with await asyncio.start_server(cluster.serve, "127.0.0.1", 0, limit=HEAD_BYTES) as made:
        port = made.sockets[0].getsockname()[1]

        async def run(transport: dict[str, str], *args: str, **io: Any) -> asyncio.subprocess.Process:
            base = ["kubectl", "--server", f"http://127.0.0.1:{port}", "--cache-dir", str(tmp_path)]
            pipes = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE) | io
            environment = {**os.environ, "HOME": str(tmp_path), "KUBECONFIG": "/dev/null", **transport}
            return await asyncio.create_subprocess_exec(*base, *args, env=environment, **pipes)

        yield run


@both
async def test_exec_carries_outputs_and_the_exit_code(
    kubectl: Any, cluster: Cluster, transport: dict[str, str]
) -> None:
    process = await kubectl(transport, "exec", "p", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    out, err = await process.communicate()
    assert (out, process.returncode) == (b"out\n", 7)
    assert b"err\n" in err  # kubectl itself may log a line before it, when an empty message comes early
    assert cluster.upgrades == ["SPDY/3.1" if transport else "v5.channel.k8s.io"]


@both
async def test_exec_takes_input_to_its_end(kubectl: Any, transport: dict[str, str]) -> None:
    data = bytes(range(256)) * 4096
    process = await kubectl(transport, "exec", "-i", "p", "--", "sh", "-c", "cat; echo end")
    out, _ = await process.communicate(data)
    assert out == data + b"end\n"
    assert process.returncode == 0


@both
async def test_exec_on_a_terminal_follows_its_size(kubectl: Any, cluster: Cluster, transport: dict[str, str]) -> None:
    keyboard, terminal = pty.openpty()
    fcntl.ioctl(keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", 37, 101, 0, 0))
    ends = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    process = await kubectl(
        transport, "exec", "-it", "p", "--", "sh", "-c", "read x; stty size; exit 3", start_new_session=True, **ends
    )
    os.close(terminal)
    await (await cluster.opened.get()).resized.wait()
    os.write(keyboard, b"go\n")
    await process.wait()
    assert b"37 101" in os.read(keyboard, 4096)
    os.close(keyboard)
    assert process.returncode == 3
    assert (101, 37) in cluster.sessions[0].sizes


@both
async def test_attach(kubectl: Any, transport: dict[str, str]) -> None:
    process = await kubectl(transport, "attach", "-i", "p", "-c", "c")
    out, _ = await process.communicate(b"me\n")
    assert (out, process.returncode) == (b"attached me\n", 0)


@both
async def test_port_forward_carries_many_connections(
    kubectl: Any, cluster: Cluster, echo: int, transport: dict[str, str]
) -> None:
    process = await kubectl(transport, "port-forward", "p", f":{echo}")
    line = (await process.stdout.readline()).decode()
    port = int(line.split(" -> ")[0].rpartition(":")[2])
    data = bytes(range(256)) * 1024

    async def converse(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        payload = data + str(number).encode()
        writer.write(payload)
        writer.write_eof()
        assert await reader.read(-1) == payload + b"bye"
        writer.close()

    async with asyncio.timeout(20):
        await asyncio.gather(*(converse(number) for number in range(10)))
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert cluster.upgrades == ["SPDY/3.1" if transport else "SPDY/3.1+portforward.k8s.io"]


@both
async def test_port_forward_to_a_closed_port_tells_why(kubectl: Any, transport: dict[str, str]) -> None:
    process = await kubectl(transport, "port-forward", "p", ":1")
    port = int((await process.stdout.readline()).decode().split(" -> ")[0].rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await reader.read() == b""
    writer.close()
    async with asyncio.timeout(10):
        while b"error forwarding port 1 to pod" not in await process.stderr.readline():
            pass
    if process.returncode is None:
        process.send_signal(signal.SIGINT)
    await process.communicate()
