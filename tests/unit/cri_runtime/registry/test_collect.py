"""Garbage collection beside pushes: what is used stays, what is not goes."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cri_runtime.images.digest import Digest
from cri_runtime.registry.collect import Collector, Policy
from cri_runtime.registry.repositories import Repositories
from cri_runtime.registry.serve import Options, opened


class Served:
    """A registry with its collector."""

    def __init__(self, base: str, root: Path, collector: Collector) -> None:
        self.base = base
        self.root = root
        self.collector = collector

    @property
    def blobs(self) -> set[Digest]:
        """What lies in the store."""
        return {Digest(f"sha256:{path.name}") for path in (self.root / "blobs/sha256").iterdir()}


def policy(**fields: Any) -> Policy:
    """Collect by hand, without grace."""
    return Policy(**{"interval_s": 0, "grace_s": -1, **fields})


@pytest.fixture
async def served(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    """Served without grace, or with the parameter's policy."""
    options = Options(collect=getattr(request, "param", policy()))
    async with opened(tmp_path, "127.0.0.1:0", options) as (address, collector):
        yield Served(f"http://{address}", tmp_path, collector)


async def test_what_a_deleted_image_had_alone_goes(served: Served, pushes: Any) -> None:
    kept = await pushes.image(served.base, "kept", b"shared", b"mine")
    gone = await pushes.image(served.base, "gone", b"shared", b"lonely")
    assert await pushes.status("DELETE", f"{served.base}/v2/r/manifests/{gone}") == 202
    collected = await served.collector.collect()
    assert served.blobs == {kept, *map(Digest.of, (b"{}", b"shared", b"mine"))}
    assert (collected.links, collected.freed_bytes > len(b"lonely")) == (1, True)
    assert await pushes.status("GET", f"{served.base}/v2/r/manifests/kept") == 200
    assert (await served.collector.collect()).freed_bytes == 0


@pytest.mark.parametrize("served", [policy(grace_s=3600)], indirect=True)
async def test_blobs_of_a_push_under_way_have_their_grace(served: Served, pushes: Any) -> None:
    digest = await pushes.blob(served.base, b"layer")
    await served.collector.collect()
    assert digest in served.blobs


async def test_a_manifest_too_late_is_refused_not_broken(served: Served, pushes: Any) -> None:
    digest = await pushes.blob(served.base, b"{}")
    await served.collector.collect()
    assert digest not in served.blobs
    body = {"schemaVersion": 2, "config": {"mediaType": "x", "digest": digest, "size": 2}, "layers": []}
    headers = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
    url = f"{served.base}/v2/r/manifests/t"
    assert await pushes.status("PUT", url, data=json.dumps(body).encode(), headers=headers) == 404


@pytest.mark.parametrize("served", [policy(untagged=True)], indirect=True)
async def test_untagged_manifests_go_only_when_asked_for(served: Served, pushes: Any) -> None:
    tagged = await pushes.image(served.base, "t", b"a")
    referrer = await pushes.image(served.base, "", b"b", subject={"mediaType": "x", "digest": tagged, "size": 1})
    old = await pushes.image(served.base, "moving", b"old")
    new = await pushes.image(served.base, "moving", b"new")
    assert (await served.collector.collect()).manifests == 1
    assert served.blobs >= {tagged, referrer, new}
    assert old not in served.blobs


async def test_a_blob_that_is_being_linked_when_a_sweep_begins_is_spared(tmp_path: Path) -> None:
    repositories = Repositories(tmp_path)
    with repositories.linking(Digest.of(b"data")):  # an upload is about to be committed
        async with repositories.sweeping() as sweep:
            digest = repositories.blobs.put(b"data")
            assert sweep() == 0
        repositories.get("r").link_blob(digest)
    async with repositories.sweeping() as sweep:
        assert sweep() == 0
    repositories.get("r").unlink_blob(digest)
    async with repositories.sweeping() as sweep:
        with repositories.linking(digest):  # and unlinked again before the sweep looks
            pass
        assert sweep() == 0
    async with repositories.sweeping() as sweep:
        assert sweep() == 4


async def test_pushes_while_collecting_all_end_whole(served: Served, pushes: Any) -> None:
    """Retried as a client does; in the end every image has all its blobs."""

    async def push(number: int) -> None:
        for _ in range(100):
            try:
                await pushes.image(served.base, f"t{number}", b"shared", b"%d" % number)
            except AssertionError:
                continue
            return
        raise AssertionError("never whole")

    async def collect() -> None:
        for _ in range(20):
            await served.collector.collect()

    await asyncio.gather(collect(), *map(push, range(8)))
    for number in range(8):
        assert await pushes.status("GET", f"{served.base}/v2/r/manifests/t{number}") == 200
        for data in (b"shared", b"%d" % number):
            assert await pushes.status("GET", f"{served.base}/v2/r/blobs/{Digest.of(data)}") == 200
