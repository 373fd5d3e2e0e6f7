"""ADD from the net: a URL's content as a blob of the store."""

import asyncio
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urlsplit

import aiohttp

from cri_runtime.build.errors import BuildError
from cri_runtime.build.request import Download
from cri_runtime.images.digest import Digest
from cri_runtime.images.errors import ContentMismatch, InvalidDigest
from cri_runtime.images.remote import Session
from cri_runtime.images.store import ImageStore

_CHUNK_BYTES = 1 << 20


def is_url(source: str) -> bool:
    """Whether a source of ADD is fetched."""
    return source.startswith(("http://", "https://"))


async def download(session: Session, store: ImageStore, url: str, checksum: str = "") -> Download:
    """Fetch ``url``; content with a known ``checksum`` that is here is not fetched again.

    The caller holds the store. Raises BuildError, ContentMismatch, OSError.
    """
    expected = _digest(checksum)
    parts = urlsplit(url)
    name = unquote(parts.path.rpartition("/")[2])
    if expected is not None and expected in store.blobs:
        return Download(name, expected, 0)
    try:
        async with session.http(parts.netloc).get(url) as response:
            if response.status != 200:
                raise BuildError(0, f"{url}: {parts.netloc} answers {response.status} {response.reason}")
            with store.blobs.writer() as writer:
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    await asyncio.to_thread(writer.write, chunk)
                try:
                    digest = await asyncio.to_thread(writer.commit, expected)
                except ContentMismatch as err:
                    raise ContentMismatch(f"{url}: --checksum: {err}") from err
            return Download(name, digest, _modified(response.headers.get("Last-Modified", "")))
    except (aiohttp.ClientError, TimeoutError) as err:
        raise BuildError(0, f"{url}: {parts.netloc} does not answer ({err})") from err


def _digest(text: str) -> Digest | None:
    try:
        return Digest(text) if text else None
    except InvalidDigest as err:
        raise BuildError(0, f"--checksum: {err}") from err


def _modified(text: str) -> int:
    try:
        return max(int(parsedate_to_datetime(text).timestamp()), 0)
    except (ValueError, TypeError, OverflowError):
        return 0
