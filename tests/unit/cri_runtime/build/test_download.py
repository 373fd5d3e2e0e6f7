"""ADD from the net, against a server of this process."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from cri_runtime.build.errors import StepFailed
from cri_runtime.images.digest import Digest
from cri_runtime.images.remote import Session


class Site:
    """Serves ``content`` at any path below ``/f/``, and counts."""

    def __init__(self) -> None:
        self.content = b"from the net"
        self.served = 0
        self.base = ""

    async def answer(self, request: web.Request) -> web.Response:
        """The content."""
        self.served += 1
        return web.Response(body=self.content, headers={"Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT"})


@pytest.fixture
async def site(builder: Any) -> AsyncIterator[Site]:
    """A site, and a builder that can reach it."""
    site = Site()
    app = web.Application()
    app.router.add_get("/f/{name:.*}", site.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with Session() as session:
        builder._session = session
        yield site
    await runner.cleanup()


async def test_a_url_becomes_a_file(build: Any, site: Site) -> None:
    url = f"{site.base}/f/a%20b.txt?query"
    result = await build(f"FROM scratch\nADD {url} local /d/\nADD --chmod=755 --chown=5:6 {url} /x", {"local": "l"})
    assert await result.files() == {"d": None, "d/a b.txt": "from the net", "d/local": "l", "x": "from the net"}
    assert [await result.stat("d/a b.txt"), await result.stat("x")] == [(0o600, 0, 0), (0o755, 5, 6)]
    (top, *_) = await result.store.lower_dirs(result.image.id)
    assert int((top / "x").stat().st_mtime) == 784111777


async def test_the_cache_goes_by_what_was_fetched(build: Any, site: Site) -> None:
    text = f"FROM scratch\nADD {site.base}/f/x /x"
    await build(text)
    assert (await build(text)).cached == 1
    site.content = b"changed"
    assert (await (await build(text)).files())["x"] == "changed"


async def test_a_known_checksum_is_not_fetched_again(build: Any, site: Site) -> None:
    good = f"FROM scratch\nARG SUM\nADD --checksum=$SUM {site.base}/f/x /x"
    checksum = {"SUM": Digest.of(site.content)}
    for _ in range(2):
        await build(good, build_args=checksum, tags=["kept"])
    await build(good, build_args=checksum)
    assert site.served >= 1
    with pytest.raises(StepFailed, match=r"^Dockerfile:3: .*/f/x: --checksum: .* the content that arrived"):
        await build(good, build_args={"SUM": Digest.of(b"other")})


@pytest.mark.parametrize(
    ("add", "message"),
    [
        ("{}/none /x", "answers 404"),
        ("http://127.0.0.1:1/x /x", "does not answer"),
        ("{}/f/ /d/", "no file name"),
        ("--checksum=md5:1 {}/f/x /x", "not a digest"),
    ],
)
async def test_what_cannot_be_fetched(build: Any, site: Site, add: str, message: str) -> None:
    with pytest.raises(StepFailed, match=f"^Dockerfile:2: .*{message}"):
        await build("FROM scratch\nADD " + add.format(site.base))
