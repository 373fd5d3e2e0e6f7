"""The read-through mirror, against an upstream of our own that can be taken away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from cri_runtime.images.digest import Digest
from cri_runtime.registry.serve import Options, running


@asynccontextmanager
async def mirror_of(address: str, root: Path) -> AsyncIterator[str]:
    """The base URL of a mirror."""
    async with running(root, "127.0.0.1:0", Options(mirror=f"http://{address}")) as mirror:
        yield f"http://{mirror}"


async def body(pushes: Any, url: str) -> bytes:
    """The answer of a good GET."""
    async with pushes.http.get(url) as response:
        assert response.status == 200
        return bytes(await response.read())


async def test_what_was_pulled_once_is_served_offline(tmp_path: Path, pushes: Any) -> None:
    layer = bytes(range(256)) * 9000
    async with running(tmp_path / "up", "127.0.0.1:0") as upstream:
        digest = await pushes.image(f"http://{upstream}", "v1", layer, repository="library/x")
        async with mirror_of(upstream, tmp_path / "mirror") as base:
            assert Digest.of(await body(pushes, f"{base}/v2/library/x/manifests/v1")) == digest
            url = f"{base}/v2/library/x/blobs/{Digest.of(layer)}"
            # Readers of one download each read from its one file: eight of them would catch a shared position.
            assert await asyncio.gather(*(body(pushes, url) for _ in range(8))) == [layer] * 8
            assert await pushes.status("GET", f"{base}/v2/library/x/manifests/none") == 404
            assert await pushes.status("GET", f"{base}/v2/library/x/blobs/{Digest.of(b'none')}") == 404
    async with mirror_of("127.0.0.1:1", tmp_path / "mirror") as base:
        assert Digest.of(await body(pushes, f"{base}/v2/library/x/manifests/v1")) == digest
        assert await body(pushes, f"{base}/v2/library/x/blobs/{Digest.of(layer)}") == layer
        assert await pushes.status("GET", f"{base}/v2/library/x/manifests/none") == 404


async def test_tags_of_upstream_move_and_ours_stay(tmp_path: Path, pushes: Any) -> None:
    async with running(tmp_path / "up", "127.0.0.1:0") as upstream, mirror_of(upstream, tmp_path / "m") as base:
        await pushes.image(f"http://{upstream}", "t", b"one")
        await body(pushes, f"{base}/v2/r/manifests/t")
        second = await pushes.image(f"http://{upstream}", "t", b"two")
        assert Digest.of(await body(pushes, f"{base}/v2/r/manifests/t")) == second
        ours = await pushes.image(base, "t", b"ours")
        assert Digest.of(await body(pushes, f"{base}/v2/r/manifests/t")) == ours


async def test_a_blob_of_another_content_is_never_handed_on_whole(tmp_path: Path, pushes: Any) -> None:
    async def lie(request: web.Request) -> web.Response:
        return web.Response(body=b"other bytes")

    app = web.Application()
    app.router.add_get("/v2/r/blobs/{digest}", lie)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with mirror_of(f"127.0.0.1:{runner.addresses[0][1]}", tmp_path / "m") as base:
        with pytest.raises(aiohttp.ClientPayloadError):
            await body(pushes, f"{base}/v2/r/blobs/{Digest.of(b'right bytes')}")
    await runner.cleanup()
    assert not [*(tmp_path / "m/blobs/sha256").iterdir()]
