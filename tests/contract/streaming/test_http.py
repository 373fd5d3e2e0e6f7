"""URLs and plain HTTP: what a token is good for, and how wrong requests are answered."""

import asyncio
from collections.abc import Callable

import aiohttp
import pytest

from cri_runtime.service.streaming import PENDING, StreamingServer, TooManyPending

SPDY = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}


async def test_a_url_is_good_once(http: aiohttp.ClientSession, exec_url: Callable[..., str]) -> None:
    url = exec_url("true")
    async with http.ws_connect(url, protocols=["v5.channel.k8s.io"]) as ws:
        async for _ in ws:
            pass
    async with http.get(url) as answer:
        assert (answer.status, "once" in await answer.text()) == (404, True)


async def test_a_url_of_another_kind_is_unknown(http: aiohttp.ClientSession, exec_url: Callable[..., str]) -> None:
    async with http.get(exec_url("true").replace("/exec/", "/attach/")) as answer:
        assert answer.status == 404


@pytest.mark.parametrize("path", ["/", "/exec", "/exec/", "/exec/unknown", "/x/y/z"])
async def test_unknown_paths_are_404(http: aiohttp.ClientSession, server: StreamingServer, path: str) -> None:
    async with http.post(server.base_url + path) as answer:
        assert answer.status == 404


async def test_only_get_and_post(http: aiohttp.ClientSession, exec_url: Callable[..., str]) -> None:
    async with http.put(exec_url("true")) as answer:
        assert answer.status == 405


async def test_a_plain_request_is_told_to_upgrade(http: aiohttp.ClientSession, exec_url: Callable[..., str]) -> None:
    async with http.get(exec_url("true")) as answer:
        assert (answer.status, "upgrade" in await answer.text()) == (400, True)


async def test_spdy_without_a_protocol_is_400_and_with_an_unknown_one_403(
    http: aiohttp.ClientSession, exec_url: Callable[..., str]
) -> None:
    async with http.post(exec_url("true"), headers=SPDY) as answer:
        assert answer.status == 400
    async with http.post(exec_url("true"), headers={**SPDY, "X-Stream-Protocol-Version": "v9"}) as answer:
        assert answer.status == 403
        assert "v4.channel.k8s.io" in answer.headers.getall("X-Accepted-Stream-Protocol-Versions")


@pytest.mark.parametrize("junk", [b"junk\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"GET / HTTP/1.1\r\n bad\r\n\r\n"])
async def test_what_is_not_http_is_400(server: StreamingServer, junk: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.base_url.rpartition(":")[2]))
    writer.write(junk)
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_an_endless_head_is_refused(server: StreamingServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.base_url.rpartition(":")[2]))
    writer.write(b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000)
    assert (await reader.read(12)) == b"HTTP/1.1 400"
    writer.close()


async def test_pending_urls_are_bounded(exec_url: Callable[..., str]) -> None:
    for _ in range(PENDING):
        exec_url("true")
    with pytest.raises(TooManyPending, match="1000"):
        exec_url("true")


async def test_urls_are_not_guessable(exec_url: Callable[..., str]) -> None:
    tokens = {exec_url("true").rpartition("/")[2] for _ in range(50)}
    assert len(tokens) == 50
    assert min(map(len, tokens)) >= 20
