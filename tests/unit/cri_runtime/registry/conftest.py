"""A client that speaks distribution-spec to registries of this process."""

import json
from typing import Any

import aiohttp
import pytest

from cri_runtime.images.digest import Digest

OCI = "application/vnd.oci.image.manifest.v1+json"


class Pushes:
    """Pushes small things to the registry at an address."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.http = http

    async def status(self, method: str, url: str, **kwargs: Any) -> int:
        """The status of a request."""
        async with self.http.request(method, url, **kwargs) as response:
            await response.read()
            return response.status

    async def blob(self, base: str, data: bytes, repository: str = "r") -> Digest:
        """A blob."""
        digest = Digest.of(data)
        assert await self.status("POST", f"{base}/v2/{repository}/blobs/uploads/?digest={digest}", data=data) == 201
        return digest

    async def image(self, base: str, tag: str, *layers: bytes, repository: str = "r", **fields: Any) -> Digest:
        """An image of layers under a tag, or by digest with an empty one; its manifest's digest."""
        for data in (b"{}", *layers):
            await self.blob(base, data, repository)
        described = [{"mediaType": "application/x", "digest": Digest.of(x), "size": len(x)} for x in (b"{}", *layers)]
        body = {"schemaVersion": 2, "mediaType": OCI, "config": described[0], "layers": described[1:], **fields}
        data = json.dumps(body).encode()
        url = f"{base}/v2/{repository}/manifests/{tag or Digest.of(data)}"
        assert await self.status("PUT", url, data=data, headers={"Content-Type": OCI}) == 201
        return Digest.of(data)


@pytest.fixture
async def pushes() -> Any:
    """A client."""
    async with aiohttp.ClientSession() as http:
        yield Pushes(http)
