"""Port-forward over WebSocket channels, by aiohttp's client, as the Python clients of Kubernetes do it."""

import struct
from typing import Any

import aiohttp
import pytest

from cri_runtime.service.streaming import StreamingServer

V4 = "v4.channel.k8s.io"


async def collect(ws: aiohttp.ClientWebSocketResponse) -> dict[int, bytes]:
    got: dict[int, bytes] = {}
    async for message in ws:
        got[message.data[0]] = got.get(message.data[0], b"") + message.data[1:]
    return got


@pytest.mark.parametrize("protocols", [(V4,), ("v5.channel.k8s.io", V4), ()], ids=["v4", "v5 first", "none"])
async def test_each_port_has_a_data_and_an_error_channel(
    http: aiohttp.ClientSession, server: StreamingServer, dial: Any, echo: int, protocols: tuple[str, ...]
) -> None:
    async with http.ws_connect(server.port_forward_url(dial, [echo, 1]), protocols=protocols) as ws:
        await ws.send_bytes(b"\x00hello")
        got: dict[int, bytes] = {}
        while not (got.get(0, b"").endswith(b"hello") and len(got.get(3, b"")) > 2):
            message = await ws.receive_bytes()
            got[message[0]] = got.get(message[0], b"") + message[1:]
        await ws.close()
    assert got[0] == struct.pack("<H", echo) + b"hello"
    assert got[1] == struct.pack("<H", echo)
    assert got[3].startswith(struct.pack("<H", 1) + b"error forwarding port 1 to pod")


async def test_the_end_of_every_connection_closes(
    http: aiohttp.ClientSession, server: StreamingServer, dial: Any
) -> None:
    async with http.ws_connect(server.port_forward_url(dial, [1, 2]), protocols=[V4]) as ws:
        got = await collect(ws)
        assert ws.close_code == 1000
    assert b"error forwarding port" in got[1]
    assert b"error forwarding port" in got[3]


async def test_channels_without_ports_in_the_rpc_are_refused(
    http: aiohttp.ClientSession, server: StreamingServer, dial: Any
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect(server.port_forward_url(dial), protocols=[V4])
    assert refused.value.status == 400
