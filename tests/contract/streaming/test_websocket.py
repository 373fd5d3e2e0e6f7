"""Exec over WebSocket channels, by aiohttp's client."""

import asyncio
import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cri_runtime.service.streaming import StreamingServer, StreamRefused

V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"


async def drain(ws: aiohttp.ClientWebSocketResponse) -> dict[int, bytes]:
    """Everything until the close, by channel."""
    got: dict[int, bytes] = {}
    async for message in ws:
        assert message.type == aiohttp.WSMsgType.BINARY
        got[message.data[0]] = got.get(message.data[0], b"") + message.data[1:]
    assert ws.close_code == 1000
    return got


@pytest.mark.parametrize("protocol", [V5, V4])
async def test_outputs_come_apart_and_the_status_tells_the_exit_code(
    http: aiohttp.ClientSession, exec_url: Callable[..., str], protocol: str
) -> None:
    url = exec_url("sh", "-c", "echo out; echo err >&2; exit 7")
    async with http.ws_connect(url, protocols=[protocol]) as ws:
        assert ws.protocol == protocol
        got = await drain(ws)
    assert (got[1], got[2]) == (b"out\n", b"err\n")
    status = json.loads(got[3])
    assert (status["status"], status["reason"]) == ("Failure", "NonZeroExitCode")
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]


async def test_success_is_a_status_too(http: aiohttp.ClientSession, exec_url: Callable[..., str]) -> None:
    async with http.ws_connect(exec_url("true"), protocols=[V5]) as ws:
        assert json.loads((await drain(ws))[3]) == {"metadata": {}, "status": "Success"}


async def test_v5_half_close_ends_stdin_alone(http: aiohttp.ClientSession, exec_url: Callable[..., str]) -> None:
    url = exec_url("sh", "-c", "cat; echo end", stdin=True)
    async with http.ws_connect(url, protocols=[V5]) as ws:
        await ws.send_bytes(b"\x00hello ")
        await ws.send_bytes(b"\x00world ")
        await ws.send_bytes(b"\xff\x00")
        got = await drain(ws)
    assert got[1] == b"hello world end\n"


async def test_a_megabyte_goes_both_ways_and_arrives_whole(
    http: aiohttp.ClientSession, exec_url: Callable[..., str]
) -> None:
    data = bytes(range(256)) * 8192
    async with http.ws_connect(exec_url("cat", stdin=True), protocols=[V5], max_msg_size=0) as ws:

        async def send() -> None:
            for start in range(0, len(data), 32768):
                await ws.send_bytes(b"\x00" + data[start : start + 32768])
            await ws.send_bytes(b"\xff\x00")

        sending = asyncio.create_task(send())
        got = await drain(ws)
        await sending
    assert got[1] == data


async def test_a_terminal_is_resized_and_merges_the_outputs(
    http: aiohttp.ClientSession, exec_url: Callable[..., str], sessions: list[Any]
) -> None:
    url = exec_url("sh", "-c", "read x; stty size; echo err >&2; exit 3", tty=True, stdin=True)
    async with http.ws_connect(url, protocols=[V5]) as ws:
        await ws.send_bytes(b"\x04" + json.dumps({"Width": 101, "Height": 37}).encode())
        await ws.send_bytes(b"\x00go\r")
        got = await drain(ws)
    assert sessions[0].sizes == [(101, 37)]
    assert b"37 101\r\nerr\r\n" in got[1]
    assert json.loads(got[3])["details"]["causes"][0]["message"] == "3"


async def test_base64_channels(http: aiohttp.ClientSession, exec_url: Callable[..., str]) -> None:
    url = exec_url("sh", "-c", 'read line; echo "<$line>"', stdin=True)
    async with http.ws_connect(url, protocols=["v4.base64.channel.k8s.io"]) as ws:
        await ws.send_str("0" + base64.b64encode(b"text\n").decode())
        got: dict[str, bytes] = {}
        async for message in ws:
            assert message.type == aiohttp.WSMsgType.TEXT
            got[message.data[0]] = got.get(message.data[0], b"") + base64.b64decode(message.data[1:])
    assert got["1"] == b"<text>\n"
    assert json.loads(got["3"])["status"] == "Success"


async def test_the_oldest_protocol_tells_failures_in_text(
    http: aiohttp.ClientSession, exec_url: Callable[..., str]
) -> None:
    async with http.ws_connect(exec_url("false")) as ws:
        assert ws.protocol is None
        assert b"exit status 1" in (await drain(ws))[3]


async def test_a_client_that_leaves_ends_the_exec(
    http: aiohttp.ClientSession, exec_url: Callable[..., str], opened: asyncio.Queue[Any]
) -> None:
    async with http.ws_connect(exec_url("sleep", "1000"), protocols=[V5]):
        session = await opened.get()
    async with asyncio.timeout(10):
        await asyncio.to_thread(session.process.wait)


async def test_a_client_that_reads_nothing_stops_the_process_not_the_memory(
    exec_url: Callable[..., str], opened: asyncio.Queue[Any]
) -> None:
    """``yes`` fills the sockets' and the pipe's buffers and then stands still, while the client is alive and silent."""
    url = exec_url("yes")
    host, port = url.split("/")[2].split(":")
    _, writer = await asyncio.open_connection(host, int(port), limit=1)
    writer.write(
        f"GET {url} HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"
        f"Sec-WebSocket-Protocol: {V5}\r\n\r\n".replace(f"http://{host}:{port}", "").encode()
    )
    session = await opened.get()
    async with asyncio.timeout(20):
        await asyncio.to_thread(wait_until_still, session.process.pid)
    assert 0 < written(session.process.pid) < 50_000_000
    writer.close()


def wait_until_still(pid: int) -> None:
    """Until the process wrote nothing for a while."""
    before = -1
    while before != (before := written(pid)):
        time.sleep(0.3)


def written(pid: int) -> int:
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(fields["wchar"])


async def test_a_background_child_holding_stdout_does_not_hold_the_exec(
    http: aiohttp.ClientSession, exec_url: Callable[..., str]
) -> None:
    async with asyncio.timeout(10):
        async with http.ws_connect(exec_url("sh", "-c", "sleep 15 & echo started"), protocols=[V5]) as ws:
            got = await drain(ws)
    assert got[1] == b"started\n"


async def test_pings_are_answered(http: aiohttp.ClientSession, exec_url: Callable[..., str]) -> None:
    async with http.ws_connect(exec_url("cat", stdin=True), protocols=[V5], autoping=False) as ws:
        await ws.receive()
        await ws.ping(b"there?")
        message = await ws.receive()
        assert (message.type, message.data) == (aiohttp.WSMsgType.PONG, b"there?")
        await ws.send_bytes(b"\xff\x00")
        await drain(ws)


async def test_a_session_that_cannot_be_had_is_a_status(http: aiohttp.ClientSession, server: StreamingServer) -> None:
    async def opener() -> Any:
        raise StreamRefused("container abc is not running")

    url = server.exec_url(opener, tty=False, stdin=False, stdout=True, stderr=True)
    async with http.ws_connect(url, protocols=[V5]) as ws:
        status = json.loads((await drain(ws))[3])
    assert (status["reason"], status["message"]) == ("InternalError", "container abc is not running")


async def test_an_unknown_protocol_is_refused_with_the_known_ones(
    http: aiohttp.ClientSession, exec_url: Callable[..., str]
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect(exec_url("true"), protocols=["v9.channel.k8s.io"])
    assert refused.value.status == 403
    assert refused.value.headers is not None
    assert V5 in refused.value.headers.getall("X-Accepted-Stream-Protocol-Versions")


async def test_an_oversized_message_is_refused(http: aiohttp.ClientSession, exec_url: Callable[..., str]) -> None:
    async with http.ws_connect(exec_url("cat", stdin=True), protocols=[V5]) as ws:
        await ws.send_bytes(b"\x00" + bytes(2 << 20))
        async for _ in ws:
            pass
        assert ws.close_code == 1009
