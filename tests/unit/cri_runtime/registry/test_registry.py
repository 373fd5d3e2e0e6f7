"""The registry, endpoint by endpoint, against the sentences of distribution-spec 1.1."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cri_runtime.images.digest import Digest
from cri_runtime.registry.repositories import Repositories
from cri_runtime.registry.serve import ListenError, running, split_address

OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = b"{}"


class Client:
    """HTTP requests to one registry."""

    def __init__(self, address: str, http: aiohttp.ClientSession) -> None:
        self.base = f"http://{address}"
        self.http = http

    async def __call__(self, method: str, path: str, **kwargs: Any) -> aiohttp.ClientResponse:
        """One request; the body is read."""
        response = await self.http.request(method, path if path.startswith("http") else self.base + path, **kwargs)
        await response.read()
        return response

    async def blob(self, data: bytes, repository: str = "r") -> Digest:
        """Push a blob at once."""
        digest = Digest.of(data)
        response = await self("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", data=data)
        assert response.status == 201
        return digest

    async def manifest(self, reference: str, body: dict[str, Any], repository: str = "r") -> aiohttp.ClientResponse:
        """Push a manifest."""
        data = json.dumps({"schemaVersion": 2, "mediaType": OCI, **body}).encode()
        headers = {"Content-Type": body.get("mediaType", OCI)}
        return await self("PUT", f"/v2/{repository}/manifests/{reference}", data=data, headers=headers)


def descriptor(data: bytes, media_type: str = "application/vnd.oci.empty.v1+json") -> dict[str, Any]:
    """A descriptor of data."""
    return {"mediaType": media_type, "digest": Digest.of(data), "size": len(data)}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A registry and its client."""
    async with running(tmp_path / "registry", "127.0.0.1:0") as address, aiohttp.ClientSession() as http:
        yield Client(address, http)


def code(response: aiohttp.ClientResponse) -> str:
    """The error body's code."""
    return str(json.loads(response._body or b"")["errors"][0]["code"])  # read already


async def test_base(client: Client) -> None:
    assert (await client("GET", "/v2/")).status == 200


async def test_blobs_by_one_request(client: Client) -> None:
    digest = await client.blob(b"data")
    response = await client("GET", f"/v2/r/blobs/{digest}")
    assert (response.status, await response.read()) == (200, b"data")
    assert response.headers["Docker-Content-Digest"] == digest
    head = await client("HEAD", f"/v2/r/blobs/{digest}")
    assert (head.status, head.headers["Content-Length"]) == (200, "4")


async def test_blobs_by_post_and_put(client: Client) -> None:
    start = await client("POST", "/v2/r/blobs/uploads/")
    assert start.status == 202
    digest = Digest.of(b"data")
    done = await client("PUT", f"{start.headers['Location']}?digest={digest}", data=b"data")
    assert (done.status, done.headers["Location"]) == (201, f"/v2/r/blobs/{digest}")
    assert (await client("PUT", f"{start.headers['Location']}?digest={digest}", data=b"data")).status == 404


async def test_blobs_in_chunks(client: Client) -> None:
    location = (await client("POST", "/v2/r/blobs/uploads/")).headers["Location"]
    first = await client("PATCH", location, data=b"abc", headers={"Content-Range": "0-2"})
    assert (first.status, first.headers["Range"]) == (202, "0-2")
    gap = await client("PATCH", location, data=b"x", headers={"Content-Range": "5-5"})
    assert gap.status == 416
    status = await client("GET", location)
    assert (status.status, status.headers["Range"]) == (204, "0-2")
    assert (await client("PATCH", location, data=b"de", headers={"Content-Range": "3-4"})).status == 202
    done = await client("PUT", f"{location}?digest={Digest.of(b'abcdef')}", data=b"f")
    assert done.status == 201
    assert await (await client("GET", f"/v2/r/blobs/{Digest.of(b'abcdef')}")).read() == b"abcdef"


@pytest.mark.parametrize(
    ("given", "body", "status"),
    [
        (Digest.of(b"other"), b"data", 400),
        ("sha256:xyz", b"data", 400),
        ("", b"data", 400),
        (Digest.of(b"data", "sha512"), b"data", 201),
    ],
)
async def test_a_digest_must_fit(client: Client, given: str, body: bytes, status: int) -> None:
    location = (await client("POST", "/v2/r/blobs/uploads/")).headers["Location"]
    response = await client("PUT", f"{location}?digest={given}", data=body)
    assert response.status == status
    if status != 201:
        assert code(response) == "DIGEST_INVALID"
        assert (await client("GET", f"/v2/r/blobs/{Digest.of(b'data')}")).status == 404


async def test_an_upload_can_be_cancelled(client: Client) -> None:
    location = (await client("POST", "/v2/r/blobs/uploads/")).headers["Location"]
    assert (await client("DELETE", location)).status == 204
    gone = await client("GET", location)
    assert (gone.status, code(gone)) == (404, "BLOB_UPLOAD_UNKNOWN")
    other = (await client("POST", "/v2/r/blobs/uploads/")).headers["Location"].replace("/r/", "/s/")
    assert (await client("GET", other)).status == 404  # an upload belongs to its repository


async def test_ranges(client: Client) -> None:
    digest = await client.blob(b"0123456789")
    part = await client("GET", f"/v2/r/blobs/{digest}", headers={"Range": "bytes=2-4"})
    assert (part.status, await part.read(), part.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    beyond = await client("GET", f"/v2/r/blobs/{digest}", headers={"Range": "bytes=50-"})
    assert beyond.status == 416


async def test_mounting(client: Client) -> None:
    digest = await client.blob(b"data", "from/here")
    assert (await client("GET", f"/v2/to/blobs/{digest}")).status == 404
    mounted = await client("POST", f"/v2/to/blobs/uploads/?mount={digest}&from=from/here")
    assert (mounted.status, mounted.headers["Location"]) == (201, f"/v2/to/blobs/{digest}")
    assert (await client("GET", f"/v2/to/blobs/{digest}")).status == 200
    refused = await client("POST", f"/v2/to2/blobs/uploads/?mount={digest}&from=nowhere")
    assert refused.status == 202


async def test_manifests_by_tag_and_digest(client: Client) -> None:
    await client.blob(EMPTY)
    pushed = await client.manifest("v1", {"config": descriptor(EMPTY), "layers": []})
    digest = pushed.headers["Docker-Content-Digest"]
    assert pushed.status == 201
    for reference in ("v1", digest):
        got = await client("GET", f"/v2/r/manifests/{reference}")
        assert (got.status, got.content_type, got.headers["Docker-Content-Digest"]) == (200, OCI, digest)
        assert Digest.of(await got.read()) == digest
        assert (await client("HEAD", f"/v2/r/manifests/{reference}")).headers["Content-Length"] == str(
            len(await got.read())
        )


@pytest.mark.parametrize(
    ("body", "status", "name"),
    [
        (b"", 400, "MANIFEST_INVALID"),
        (b"[]", 400, "MANIFEST_INVALID"),
        (b'{"mediaType":"x/y"}', 400, "MANIFEST_INVALID"),
        (b'{"config":{"digest":"x"}}', 400, "MANIFEST_INVALID"),
        (b"{" + b" " * (5 << 20) + b"}", 413, "SIZE_INVALID"),
        (
            json.dumps({"config": descriptor(b"absent")}).encode(),
            404,
            "MANIFEST_BLOB_UNKNOWN",
        ),
    ],
)
async def test_broken_manifests_are_refused(client: Client, body: bytes, status: int, name: str) -> None:
    response = await client("PUT", "/v2/r/manifests/v1", data=body, headers={"Content-Type": OCI})
    assert (response.status, code(response)) == (status, name)
    assert (await client("GET", "/v2/r/manifests/v1")).status == 404


async def test_tags_are_sorted_and_paged(client: Client) -> None:
    await client.blob(EMPTY)
    for tag in ("b", "a", "c"):
        await client.manifest(tag, {"config": descriptor(EMPTY), "layers": []})
    everything = json.loads(await (await client("GET", "/v2/r/tags/list")).read())
    assert everything == {"name": "r", "tags": ["a", "b", "c"]}
    page = await client("GET", "/v2/r/tags/list?n=2")
    assert json.loads(await page.read())["tags"] == ["a", "b"]
    assert page.headers["Link"] == '</v2/r/tags/list?n=2&last=b>; rel="next"'
    rest = await client("GET", "/v2/r/tags/list?n=2&last=b")
    assert json.loads(await rest.read())["tags"] == ["c"]
    assert "Link" not in rest.headers
    assert json.loads(await (await client("GET", "/v2/r/tags/list?n=0")).read())["tags"] == []
    assert code(await client("GET", "/v2/nosuch/tags/list")) == "NAME_UNKNOWN"


async def test_the_catalog_knows_nested_names(client: Client) -> None:
    for name in ("a", "a/b/c", "z"):
        await client.blob(EMPTY, name)
    assert json.loads(await (await client("GET", "/v2/_catalog")).read()) == {"repositories": ["a", "a/b/c", "z"]}


async def test_deletes(client: Client) -> None:
    await client.blob(EMPTY)
    body = {"config": descriptor(EMPTY), "layers": []}
    digest = (await client.manifest("v1", body)).headers["Docker-Content-Digest"]
    await client.manifest("v2", body)
    assert (await client("DELETE", "/v2/r/manifests/v1")).status == 202
    assert (await client("GET", f"/v2/r/manifests/{digest}")).status == 200
    assert (await client("DELETE", f"/v2/r/manifests/{digest}")).status == 202
    assert code(await client("GET", "/v2/r/manifests/v2")) == "MANIFEST_UNKNOWN"
    assert (await client("DELETE", f"/v2/r/blobs/{Digest.of(EMPTY)}")).status == 202
    assert code(await client("DELETE", f"/v2/r/blobs/{Digest.of(EMPTY)}")) == "BLOB_UNKNOWN"


async def test_referrers(client: Client) -> None:
    await client.blob(EMPTY)
    subject = {"mediaType": OCI, "digest": Digest.of(b"not here yet"), "size": 12}
    for kind, number in (("sbom/x", 1), ("signature/y", 2)):
        pushed = await client.manifest(
            f"t{number}",
            {
                "artifactType": kind,
                "config": descriptor(EMPTY),
                "layers": [],
                "subject": subject,
                "annotations": {"n": str(number)},
            },
        )
        assert pushed.headers["OCI-Subject"] == subject["digest"]
    path = f"/v2/r/referrers/{subject['digest']}"
    listed = await client("GET", path)
    assert listed.content_type == INDEX
    manifests = json.loads(await listed.read())["manifests"]
    assert sorted((m["artifactType"], m["annotations"]["n"]) for m in manifests) == [
        ("sbom/x", "1"),
        ("signature/y", "2"),
    ]
    some = await client("GET", path + "?artifactType=sbom/x")
    assert some.headers["OCI-Filters-Applied"] == "artifactType"
    assert [m["artifactType"] for m in json.loads(await some.read())["manifests"]] == ["sbom/x"]
    await client("DELETE", f"/v2/r/manifests/{manifests[0]['digest']}")
    assert len(json.loads(await (await client("GET", path)).read())["manifests"]) == 1
    nothing = await client("GET", f"/v2/r/referrers/{Digest.of(b'nothing')}")
    assert (nothing.status, json.loads(await nothing.read())["manifests"]) == (200, [])


@pytest.mark.parametrize(
    "path", ["/v2/UPPER/tags/list", "/v2/a//b/tags/list", "/v2/_x/manifests/v1", "/v2/../x/tags/list"]
)
async def test_bad_names_are_refused(client: Client, path: str) -> None:
    response = await client("GET", path)
    assert response.status in (400, 404)
    assert code(response) in ("NAME_INVALID", "NAME_UNKNOWN", "UNSUPPORTED")


async def test_what_was_acknowledged_survives_and_the_rest_is_swept(tmp_path: Path) -> None:
    async with running(tmp_path, "127.0.0.1:0") as address, aiohttp.ClientSession() as http:
        client = Client(address, http)
        digest = await client.blob(EMPTY)
        await client.manifest("v1", {"config": descriptor(EMPTY), "layers": []})
        location = (await client("POST", "/v2/r/blobs/uploads/")).headers["Location"]
        await client("PATCH", location, data=b"unfinished")
    orphan = Repositories(tmp_path).blobs.put(b"orphan")
    async with running(tmp_path, "127.0.0.1:0") as address, aiohttp.ClientSession() as http:
        client = Client(address, http)
        assert (await client("GET", "/v2/r/manifests/v1")).status == 200
        assert (await client("GET", f"/v2/r/blobs/{digest}")).status == 200
    assert orphan not in Repositories(tmp_path).blobs
    assert not list((tmp_path / "ingest").iterdir())


async def test_a_taken_port_is_named(client: Client, tmp_path: Path) -> None:
    with pytest.raises(ListenError, match=r"cannot listen on 127.0.0.1:\d+: .*choose another"):
        async with running(tmp_path / "other", client.base.removeprefix("http://")):
            pass


@pytest.mark.parametrize("text", ["5000", "localhost", "x:y", "127.0.0.1:70000"])
def test_bad_addresses_are_refused(text: str) -> None:
    with pytest.raises(ListenError, match="write host:port"):
        split_address(text)


async def test_a_manifest_is_pushed_by_digest_with_tags(client: Client) -> None:
    body = {"schemaVersion": 2, "mediaType": OCI, "config": descriptor(EMPTY), "layers": []}
    await client.blob(EMPTY)
    data = json.dumps(body).encode()
    url = f"/v2/r/manifests/{Digest.of(data)}?tag=1.2&tag=latest&tag=1.2"
    response = await client("PUT", url, data=data, headers={"Content-Type": OCI})
    assert (response.status, response.headers["OCI-Tag"]) == (201, "1.2, latest")
    assert json.loads(await (await client("GET", "/v2/r/tags/list")).read())["tags"] == ["1.2", "latest"]
    wrong = await client("PUT", f"/v2/r/manifests/{Digest.of(data)}?tag=-", data=data, headers={"Content-Type": OCI})
    assert (wrong.status, code(wrong)) == (400, "MANIFEST_INVALID")


async def test_a_mount_without_source_looks_everywhere(client: Client) -> None:
    digest = await client.blob(b"data", "a/b")
    assert (await client("POST", f"/v2/r/blobs/uploads/?mount={digest}")).status == 201
    assert (await client("GET", f"/v2/r/blobs/{digest}")).status == 200
    assert (await client("POST", f"/v2/r/blobs/uploads/?mount={Digest.of(b'none')}")).status == 202
