"""Pull and push against our registry, and against one that misbehaves. Needs root: layers are unpacked."""

import asyncio
import base64
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from cri_runtime.images.digest import Digest
from cri_runtime.images.errors import (
    ContentMismatch,
    ImageError,
    InvalidManifest,
    NotInRegistry,
    RegistryDenied,
    RegistryError,
    RegistryUnavailable,
    UnsafeLayer,
)
from cri_runtime.images.hosts import Auth, Registries, Settings
from cri_runtime.images.manifest import OCI_INDEX, OCI_MANIFEST, Platform, dump
from cri_runtime.images.pull import Puller
from cri_runtime.images.push import Pusher
from cri_runtime.images.remote import Session
from cri_runtime.images.store import ImageStore
from cri_runtime.images.transfer import Progress
from cri_runtime.registry.app import Registry
from cri_runtime.registry.repositories import Repositories

pytestmark = pytest.mark.root
Make = Callable[..., Any]
Lab = Any
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Fault = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def faulty(root: Path, fault: Fault) -> AsyncIterator[str]:
    """Our registry behind ``fault``, which may answer in its place."""

    @web.middleware
    async def inject(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await fault(request, handler)

    app = Registry(Repositories(root)).app()
    app.middlewares.insert(0, inject)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_what_was_pushed_comes_back(lab: Lab, add: Make, tar: Make, e: Make, tmp_path: Path) -> None:
    image = await add("docker.io/library/kubia:latest", layers=[tar(e("a", b"1")), tar(e("b", b"2"))], cmd=("x",))
    digest = await lab.pusher.push("kubia", f"{lab.address}/luksa/kubia:v1")
    other = ImageStore(tmp_path / "other")
    pulled = await Puller(other, Registries(), lab.session).pull(f"{lab.address}/luksa/kubia:v1")
    assert (pulled.id, pulled.layers, pulled.config) == (image.id, image.layers, image.config)
    assert pulled.repo_tags == (f"{lab.address}/luksa/kubia:v1",)
    assert pulled.repo_digests == (f"{lab.address}/luksa/kubia@{digest}",)
    assert lab.store.get("kubia").repo_digests == pulled.repo_digests


async def test_by_digest_gives_no_tag(lab: Lab, add: Make, tmp_path: Path) -> None:
    await add("docker.io/library/kubia:latest")
    digest = await lab.pusher.push("kubia", f"{lab.address}/kubia:v1")
    other = ImageStore(tmp_path / "other")
    pulled = await Puller(other, Registries(), lab.session).pull(f"{lab.address}/kubia@{digest}")
    assert pulled.repo_tags == ()
    assert pulled.repo_digests == (f"{lab.address}/kubia@{digest}",)


async def test_only_what_is_missing_is_sent(lab: Lab, add: Make, tar: Make, e: Make) -> None:
    base = tar(e("base", b"x" * 1000))
    await add("docker.io/library/one:latest", layers=[base])
    await add("docker.io/library/two:latest", layers=[base, tar(e("more", b"y"))])
    seen: list[Progress] = []
    await lab.pusher.push("one", f"{lab.address}/one", report=seen.append)
    await lab.pusher.push("one", f"{lab.address}/one", report=lambda p: seen.append(p))
    again = [p.status for p in seen[-3:] if p.id]
    assert again == ["exists", "exists"]
    seen.clear()
    await lab.pusher.push("two", f"{lab.address}/two", report=seen.append)
    base_digest = lab.store.get("one").layers[0].descriptor.digest
    assert {p.status for p in seen if p.id == base_digest} == {"mounted"}


async def test_pulls_at_once_share_each_download(add: Make, store: ImageStore, tmp_path: Path) -> None:
    fetched: list[str] = []

    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "GET" and "/blobs/sha256" in request.path:
            fetched.append(request.path.rpartition("/")[2])
            await asyncio.sleep(0.05)
        return await handler(request)

    await add("docker.io/library/kubia:latest")
    async with faulty(tmp_path / "r", count) as address, Session() as session:
        for name in ("a", "b"):
            await Pusher(store, Registries(), session).push("kubia", f"{address}/{name}")
        puller = Puller(ImageStore(tmp_path / "other"), Registries(), session)
        images = await asyncio.gather(*(puller.pull(f"{address}/{name}") for name in "abaabb"))
    assert len({image.id for image in images}) == 1
    assert sorted(fetched) == sorted(set(fetched))


async def test_an_abandoned_pull_does_not_take_the_others_down(add: Make, store: ImageStore, tmp_path: Path) -> None:
    started = asyncio.Event()

    async def slow(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "GET" and "/blobs/" in request.path:
            started.set()
            await asyncio.sleep(0.05)
        return await handler(request)

    await add("docker.io/library/kubia:latest")
    async with faulty(tmp_path / "r", slow) as address, Session() as session:
        await Pusher(store, Registries(), session).push("kubia", f"{address}/k")
        puller = Puller(ImageStore(tmp_path / "other"), Registries(), session)
        first = asyncio.create_task(puller.pull(f"{address}/k"))
        await started.wait()
        second = asyncio.create_task(puller.pull(f"{address}/k"))
        first.cancel()
        assert (await second).repo_tags == (f"{address}/k:latest",)


async def test_a_broken_download_goes_on_where_it_stopped(
    add: Make, store: ImageStore, tar: Make, e: Make, tmp_path: Path
) -> None:
    ranges: list[str] = []

    async def cut(request: web.Request, handler: Handler) -> web.StreamResponse:
        is_layer = request.method == "GET" and request.path.endswith(layer)
        if is_layer:
            ranges.append(request.headers.get("Range", ""))
        if not is_layer or len(ranges) > 1:
            return await handler(request)
        response = web.StreamResponse(headers={"Content-Length": str(len(blob))})
        await response.prepare(request)
        await response.write(blob[:1000])
        assert request.transport is not None
        request.transport.close()
        return response

    data = random.Random(1).randbytes(100_000)
    image = await add("docker.io/library/kubia:latest", layers=[tar(e("big", data))])
    layer = image.layers[0].descriptor.digest
    blob = store.blobs.read(layer)
    async with faulty(tmp_path / "r", cut) as address, Session() as session:
        await Pusher(store, Registries(), session).push("kubia", f"{address}/k")
        pulled = await Puller(ImageStore(tmp_path / "other"), Registries(), session).pull(f"{address}/k")
    assert pulled.id == image.id
    assert ranges == ["", "bytes=1000-"]


async def answer(data: bytes, content_type: str = OCI_MANIFEST) -> web.StreamResponse:
    """A plain answer."""
    return web.Response(body=data, headers={"Content-Type": content_type})


def replacing(part: str, data: bytes, content_type: str = OCI_MANIFEST) -> Fault:
    """A registry that answers ``data`` to GETs with ``part`` in their path."""

    async def fault(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "GET" and part in request.path:
            return await answer(data, content_type)
        return await handler(request)

    return fault


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (replacing("/blobs/", b"something else"), ContentMismatch),
        (replacing("/manifests/", b"{}"), InvalidManifest),
        (replacing("/manifests/", b"x" * (5 << 20)), InvalidManifest),
        (replacing("/manifests/", b'{"schemaVersion":2,"manifests":[]}', OCI_INDEX), InvalidManifest),
        (replacing("/manifests/", b"<html>", "text/html"), InvalidManifest),
    ],
)
async def test_a_lying_registry_changes_nothing(
    fault: Fault, error: type[ImageError], add: Make, store: ImageStore, tmp_path: Path
) -> None:
    await add("docker.io/library/kubia:latest")
    other = ImageStore(tmp_path / "other")
    async with faulty(tmp_path / "r", fault) as address, Session() as session:
        await Pusher(store, Registries(), session).push("kubia", f"{address}/k")
        with pytest.raises(error):
            await Puller(other, Registries(), session).pull(f"{address}/k")
    assert other.images() == []
    await other.sweep()
    assert other.usage().used_bytes == 0
    assert not list((other.root / "ingest").iterdir())


async def test_a_hostile_layer_is_refused(lab: Lab, store: ImageStore, tar: Make, e: Make, tmp_path: Path) -> None:
    from cri_runtime.images.manifest import OCI_CONFIG, OCI_LAYER, Descriptor, ImageConfig, Manifest

    data = tar(e("../evil", b"x"))
    config = ImageConfig(diff_ids=(Digest.of(data),)).to_bytes()
    layer = Descriptor(OCI_LAYER, store.blobs.put(data), len(data))
    manifest = Manifest(OCI_MANIFEST, Descriptor(OCI_CONFIG, store.blobs.put(config), len(config)), (layer,))
    address = lab.address
    async with lab.session.http(address).post(
        f"http://{address}/v2/evil/blobs/uploads/?digest={layer.digest}", data=data
    ) as response:
        assert response.status == 201
    async with lab.session.http(address).post(
        f"http://{address}/v2/evil/blobs/uploads/?digest={manifest.config.digest}", data=config
    ) as response:
        assert response.status == 201
    async with lab.session.http(address).put(
        f"http://{address}/v2/evil/manifests/v1", data=manifest.to_bytes(), headers={"Content-Type": OCI_MANIFEST}
    ) as response:
        assert response.status == 201
    with pytest.raises(UnsafeLayer, match="leads out"):
        await Puller(ImageStore(tmp_path / "other"), Registries(), lab.session).pull(f"{address}/evil:v1")


async def test_errors_name_image_and_registry(lab: Lab) -> None:
    with pytest.raises(NotInRegistry, match=rf"{lab.address}/nosuch:v1: not found.*MANIFEST_UNKNOWN"):
        await lab.puller.pull(f"{lab.address}/nosuch:v1")
    with pytest.raises(RegistryUnavailable, match=r"registry 127\.0\.0\.1:1 does not answer"):
        await lab.puller.pull("127.0.0.1:1/x")


async def test_what_passes_is_tried_again_and_what_stays_is_told(add: Make, store: ImageStore, tmp_path: Path) -> None:
    failures = 0

    async def flaky(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal failures
        if request.method == "GET" and "/manifests/" in request.path and failures:
            failures -= 1
            return web.Response(status=503)
        return await handler(request)

    await add("docker.io/library/kubia:latest")
    async with faulty(tmp_path / "r", flaky) as address, Session() as session:
        await Pusher(store, Registries(), session).push("kubia", f"{address}/k")
        puller = Puller(ImageStore(tmp_path / "other"), Registries(), session)
        failures = 2
        assert await puller.pull(f"{address}/k")
        failures = 100
        with pytest.raises(RegistryUnavailable, match="answers 503"):
            await puller.pull(f"{address}/k")


async def test_a_mirror_is_asked_first_and_the_registry_after(lab: Lab, add: Make, tmp_path: Path) -> None:
    await add("docker.io/library/pause:latest")
    await lab.pusher.push("pause", f"{lab.address}/pause:3.9")
    hosts = Registries({"127.0.0.1:1": Settings(mirrors=("http://127.0.0.1:2", f"http://{lab.address}"))})
    other = ImageStore(tmp_path / "other")
    image = await Puller(other, hosts, lab.session).pull("127.0.0.1:1/pause:3.9")
    assert image.repo_tags == ("127.0.0.1:1/pause:3.9",)
    with pytest.raises(NotInRegistry):  # what the living mirror says, not that the registry is dead
        await Puller(other, hosts, lab.session).pull("127.0.0.1:1/nosuch")


def basic(user: str, password: str) -> str:
    """The header of a basic login."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def test_basic_login(add: Make, store: ImageStore, tmp_path: Path) -> None:
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.headers.get("Authorization") != basic("me", "pässword"):
            return web.Response(status=401, headers={"Www-Authenticate": 'Basic realm="lab"'})
        return await handler(request)

    await add("docker.io/library/kubia:latest")
    async with faulty(tmp_path / "r", guard) as address, Session() as session:
        pusher = Pusher(store, Registries(), session)
        with pytest.raises(RegistryDenied, match="does not let an anonymous user"):
            await pusher.push("kubia", f"{address}/k")
        with pytest.raises(RegistryDenied, match="does not let user me"):
            await pusher.push("kubia", f"{address}/k", Auth("me", "wrong"))
        await pusher.push("kubia", f"{address}/k", Auth("me", "pässword"))
        hosts = Registries({address: Settings(auth=Auth("me", "pässword"))})
        assert await Puller(store, hosts, session).pull(f"{address}/k")


async def test_token_login(add: Make, store: ImageStore, tmp_path: Path) -> None:
    asked: list[dict[str, str]] = []

    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path == "/token":
            asked.append({**request.query, "login": request.headers.get("Authorization", "")})
            return web.json_response({"token": "T-" + request.query["scope"].rpartition(":")[2]})
        wanted = ("Bearer T-pull", "Bearer T-pull,push") if request.method == "GET" else ("Bearer T-pull,push",)
        if request.headers.get("Authorization") not in wanted:
            realm = f"http://{request.host}/token"
            challenge = f'Bearer realm="{realm}",service="lab",scope="repository:k:pull"'
            return web.Response(status=401, headers={"Www-Authenticate": challenge})
        return await handler(request)

    await add("docker.io/library/kubia:latest")
    async with faulty(tmp_path / "r", guard) as address, Session() as session:
        await Pusher(store, Registries(), session).push("kubia", f"{address}/k", Auth("me", "x"))
        assert await Puller(ImageStore(tmp_path / "o"), Registries(), session).pull(f"{address}/k")
    assert {"service": "lab", "scope": "repository:k:pull,push", "login": basic("me", "x")} in asked
    assert {"service": "lab", "scope": "repository:k:pull", "login": ""} in asked
    assert len(asked) <= 4  # tokens are kept, not fetched per blob


async def test_a_registry_that_finds_a_blob_too_large_gets_it_in_pieces(
    add: Make, store: ImageStore, tmp_path: Path
) -> None:
    async def limit(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "PUT" and "/uploads/" in request.path and request.content_length:
            await request.read()
            return web.Response(status=413)
        return await handler(request)

    image = await add("docker.io/library/kubia:latest")
    async with faulty(tmp_path / "r", limit) as address, Session() as session:
        await Pusher(store, Registries(), session).push("kubia", f"{address}/k")
        assert (await Puller(ImageStore(tmp_path / "o"), Registries(), session).pull(f"{address}/k")).id == image.id


async def test_the_platform_is_chosen_from_an_index(lab: Lab, add: Make, tmp_path: Path) -> None:
    mine = await add("docker.io/library/mine:latest", cmd=("mine",))
    await add("docker.io/library/other:latest", cmd=("other",))
    entries = []
    for name, platform in (("other", "linux/riscv64"), ("mine", str(Platform.host()))):
        digest = await lab.pusher.push(name, f"{lab.address}/multi:{name}")
        system, architecture = platform.split("/")
        entries.append(
            {
                "mediaType": OCI_MANIFEST,
                "digest": digest,
                "size": lab.store.blobs.size(digest),
                "platform": {"os": system, "architecture": architecture},
            }
        )
    index = dump({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    url = f"http://{lab.address}/v2/multi/manifests/all"
    async with lab.session.http(lab.address).put(url, data=index, headers={"Content-Type": OCI_INDEX}) as response:
        assert response.status == 201
    puller = Puller(ImageStore(tmp_path / "o"), Registries(), lab.session)
    pulled = await puller.pull(f"{lab.address}/multi:all")
    assert pulled.id == mine.id
    assert pulled.repo_digests == (f"{lab.address}/multi@{Digest.of(index)}",)
    assert (await puller.pull(f"{lab.address}/multi:all", Platform.parse("linux/riscv64"))).config.cmd == ("other",)
    with pytest.raises(InvalidManifest, match="no variant for linux/s390x"):
        await puller.pull(f"{lab.address}/multi:all", Platform.parse("linux/s390x"))


async def test_a_push_without_location_is_an_error(add: Make, store: ImageStore, tmp_path: Path) -> None:
    async def silent(request: web.Request, handler: Handler) -> web.StreamResponse:
        return web.Response(status=202) if request.method == "POST" else await handler(request)

    await add("docker.io/library/kubia:latest")
    async with faulty(tmp_path / "r", silent) as address, Session() as session:
        with pytest.raises(RegistryError, match="does not say where to upload"):
            await Pusher(store, Registries(), session).push("kubia", f"{address}/k")
