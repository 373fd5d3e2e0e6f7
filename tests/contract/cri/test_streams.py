"""Exec, attach and port-forward over their URLs, with a WebSocket client."""

import asyncio
import json
from typing import Any

import aiohttp
import grpc
import pytest

from protos.cri import runtime_pb2 as cri

pytestmark = pytest.mark.root

PROTOCOL = "v5.channel.k8s.io"


class Client:
    """Channels of one connection: 0 stdin, 1 stdout, 2 stderr, 3 error, 4 resize."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.received = {1: b"", 2: b"", 3: b""}

    async def send(self, channel: int, data: bytes) -> None:
        await self.socket.send_bytes(bytes([channel]) + data)

    async def end_input(self) -> None:
        await self.socket.send_bytes(bytes([255, 0]))

    async def until(self, channel: int, text: bytes) -> None:
        """Read until the channel has had ``text``."""
        while text not in self.received[channel]:
            message = await self.socket.receive(timeout=60)
            assert message.type is aiohttp.WSMsgType.BINARY, (message, self.received)
            self._take(message.data)

    async def outcome(self) -> dict[str, Any]:
        """Read to the end; what the error channel said."""
        async for message in self.socket:
            self._take(message.data)
        answer: dict[str, Any] = json.loads(self.received[3])
        return answer

    def _take(self, data: bytes) -> None:
        if data[0] in self.received:
            self.received[data[0]] += data[1:]


def talk(url: str, script: Any) -> Any:
    """Connect and run ``script(client)``."""

    async def main() -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url.replace("http", "ws", 1), protocols=[PROTOCOL]) as socket,
        ):
            return await asyncio.wait_for(script(Client(socket)), 90)

    return asyncio.run(main())


def test_exec_with_streams_and_exit_code(runtime: Any, sandbox: Any) -> None:
    container = runtime.run(sandbox)
    request = cri.ExecRequest(
        container_id=container, cmd=["sh", "-c", "cat; echo err >&2; exit 4"], stdin=True, stdout=True, stderr=True
    )

    async def script(client: Client) -> dict[str, Any]:
        await client.send(0, b"to and fro")
        await client.until(1, b"to and fro")
        await client.end_input()
        answer = await client.outcome()
        assert client.received[2] == b"err\n"
        return answer

    answer = talk(runtime.cri.Exec(request).url, script)
    assert answer["reason"] == "NonZeroExitCode" and answer["details"]["causes"][0]["message"] == "4"


def test_exec_with_a_terminal(runtime: Any, sandbox: Any) -> None:
    container = runtime.run(sandbox)
    request = cri.ExecRequest(container_id=container, cmd=["sh"], stdin=True, stdout=True, tty=True)

    async def script(client: Client) -> dict[str, Any]:
        await client.send(4, json.dumps({"Width": 93, "Height": 31}).encode())
        await client.send(
            0, b'until [ "$(stat -c %i /dev/tty)" ]; do :; done; echo $TERM; tty_is=$(ls -l /proc/self/fd/0)\n'
        )
        await client.send(0, b"python3 -c 'import os; print(os.get_terminal_size(), os.ttyname(0))'\n")
        await client.until(1, b"/dev/pts/0\r\n")
        await client.send(0, b"exit 6\n")
        answer = await client.outcome()
        assert b"xterm\r\n" in client.received[1] and b"columns=93, lines=31" in client.received[1]
        return answer

    answer = talk(runtime.cri.Exec(request).url, script)
    assert answer["details"]["causes"][0]["message"] == "6"


def test_a_client_that_leaves_takes_its_command_along(runtime: Any, sandbox: Any) -> None:
    container = runtime.run(sandbox)
    request = cri.ExecRequest(container_id=container, cmd=["sh", "-c", "echo up; sleep 34567"], stdout=True)

    async def script(client: Client) -> None:
        await client.until(1, b"up\n")

    talk(runtime.cri.Exec(request).url, script)
    left = "ps ax -o args | grep 34567 | grep -v grep || true"
    runtime.wait_for(lambda: runtime.sh(container, left) == "", "end of the command")


def test_attach_sees_what_comes_and_feeds_stdin_once(runtime: Any, sandbox: Any) -> None:
    container = runtime.run(
        sandbox, "sh", "-c", "while read line; do echo got $line; done", stdin=True, stdin_once=True
    )
    request = cri.AttachRequest(container_id=container, stdin=True, stdout=True, stderr=True)

    async def script(client: Client) -> dict[str, Any]:
        await client.send(0, b"one\n")
        await client.until(1, b"got one\n")
        await client.end_input()
        return await client.outcome()

    assert talk(runtime.cri.Attach(request).url, script)["status"] == "Success"
    assert runtime.exited(container).exit_code == 0
    assert "got one" in runtime.log_of(container)


def test_detaching_leaves_the_container_running(runtime: Any, sandbox: Any) -> None:
    container = runtime.run(sandbox, "sh", "-c", "while :; do echo tick; sleep 0.02; done")

    async def script(client: Client) -> None:
        await client.until(1, b"tick\n")

    for _ in range(2):
        talk(runtime.cri.Attach(cri.AttachRequest(container_id=container, stdout=True)).url, script)
    assert runtime.status(container).state == cri.CONTAINER_RUNNING


def test_who_attaches_before_the_start_gets_every_byte(runtime: Any, sandbox: Any) -> None:
    script = "import sys, os; os.write(2, b'oops'); sys.stdout.buffer.write(b'ab\\r\\n' * 200_000); sys.exit(3)"
    container = runtime.create(sandbox, runtime.container_config("python3", "-c", script))
    url = runtime.cri.Attach(cri.AttachRequest(container_id=container, stdout=True, stderr=True)).url

    async def talking(client: Client) -> tuple[dict[str, Any], dict[int, bytes]]:
        await asyncio.to_thread(runtime.start_container, container)
        return await client.outcome(), client.received

    outcome, received = talk(url, talking)
    assert outcome["details"]["causes"][0]["message"] == "3"
    assert received[1] == b"ab\r\n" * 200_000
    assert received[2] == b"oops"


def test_who_attaches_before_the_start_of_a_terminal_sees_its_first_words(runtime: Any, sandbox: Any) -> None:
    config = runtime.container_config("sh", "-c", "printf 'name? '; read name", tty=True, stdin=True)
    container = runtime.create(sandbox, config)
    url = runtime.cri.Attach(cri.AttachRequest(container_id=container, stdout=True, tty=True)).url

    async def script(client: Client) -> None:
        await asyncio.to_thread(runtime.start_container, container)
        await client.until(1, b"name? ")

    talk(url, script)


def test_a_client_that_waited_for_the_start_and_left_stops_nothing(runtime: Any, sandbox: Any) -> None:
    container = runtime.create(sandbox, runtime.container_config("sh", "-c", "seq 500000; echo done"))
    url = runtime.cri.Attach(cri.AttachRequest(container_id=container, stdout=True)).url

    async def script(client: Client) -> None:
        await asyncio.to_thread(runtime.start_container, container)
        await client.until(1, b"1\n")

    talk(url, script)
    assert runtime.exited(container).exit_code == 0
    assert runtime.log_of(container).endswith("F done\n")


def test_a_created_container_takes_no_input(runtime: Any, sandbox: Any) -> None:
    container = runtime.create(sandbox, runtime.container_config("cat", stdin=True))
    with pytest.raises(grpc.RpcError) as caught:
        runtime.cri.Attach(cri.AttachRequest(container_id=container, stdin=True, stdout=True))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_attach_to_a_terminal(runtime: Any, sandbox: Any) -> None:
    container = runtime.run(sandbox, "sh", tty=True, stdin=True)
    request = cri.AttachRequest(container_id=container, stdin=True, stdout=True, tty=True)

    async def script(client: Client) -> None:
        await client.send(0, b"echo $((40+2)); ls -l /dev/console\n")
        await client.until(1, b"42\r\n")
        await client.until(1, b"/dev/console\r\n")

    talk(runtime.cri.Attach(request).url, script)
    assert "stdout F 42" in runtime.log_of(container)
    assert runtime.status(container).state == cri.CONTAINER_RUNNING


@pytest.mark.parametrize("network", [cri.POD, cri.NODE])
def test_port_forward_reaches_localhost_of_the_pod(runtime: Any, network: int) -> None:
    config = runtime.sandbox_config()
    config.linux.security_context.namespace_options.network = network
    sandbox = runtime.run_sandbox(config)
    serve = (
        "import socket; s=socket.create_server(('127.0.0.1',0)); print(s.getsockname()[1],flush=True)\n"
        "while True:\n c,_=s.accept(); c.sendall(b'echo:'+c.recv(100)); c.close()"
    )
    container = runtime.run(sandbox, "python3", "-c", serve)
    runtime.wait_for(lambda: runtime.log_of(container).strip(), "the server")
    port = int(runtime.log_of(container).split()[3])
    url = runtime.cri.PortForward(cri.PortForwardRequest(pod_sandbox_id=sandbox[0], port=[port])).url

    async def main() -> bytes:
        received = b""
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url.replace("http", "ws", 1), protocols=["v4.channel.k8s.io"]) as socket,
        ):
            await socket.send_bytes(b"\0hello")
            while b"echo:hello" not in received:
                message = await socket.receive(timeout=60)
                assert message.type is aiohttp.WSMsgType.BINARY
                received += message.data[1:]
        return received

    assert asyncio.run(main())
