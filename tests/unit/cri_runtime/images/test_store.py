"""The image store: names, removal, pins, pruning, restarts. Needs root: layers are unpacked."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cri_runtime.images.errors import (
    AmbiguousId,
    ContentMismatch,
    ImageInUse,
    ImageNotFound,
    InvalidManifest,
    InvalidReference,
)
from cri_runtime.images.manifest import OCI_INDEX, OCI_LAYER, Descriptor, ImageConfig
from cri_runtime.images.store import ImageStore

pytestmark = pytest.mark.root
Make = Callable[..., Any]
KUBIA = "docker.io/library/kubia:latest"


async def test_an_image_is_found_by_every_name(store: ImageStore, add: Make) -> None:
    image = await add(KUBIA, "localhost:5000/kubia:v1", cmd=("app",))
    digest = image.manifest.digest
    await store.name(image.id, {f"localhost:5000/kubia@{digest}": image.manifest})
    for reference in (
        "kubia",
        "kubia:latest",
        "docker.io/kubia",
        "localhost:5000/kubia:v1",
        f"localhost:5000/kubia@{digest}",
        f"localhost:5000/kubia:v1@{digest}",
        image.id,
        image.id.hex,
        image.id[:19],
        image.id.hex[:12],
    ):
        assert store.get(reference).id == image.id, reference
    assert store.get("kubia").repo_digests == (f"localhost:5000/kubia@{digest}",)
    assert store.get("kubia").config.cmd == ("app",)


async def test_absent_images_are_named_with_a_remedy(store: ImageStore) -> None:
    with pytest.raises(ImageNotFound, match='no image "nosuch" here; pull or build'):
        store.get("nosuch")
    with pytest.raises(InvalidReference):
        store.get("Not A Name")


async def test_an_id_prefix_must_be_unique(store: ImageStore, add: Make) -> None:
    ids: dict[str, str] = {}
    for number in range(17):  # sixteen digits: two begin alike
        image = await add(cmd=(str(number),))
        if image.id.hex[0] in ids:
            break
        ids[image.id.hex[0]] = image.id
    with pytest.raises(AmbiguousId, match="2 images"):
        store.get(image.id.hex[0])


async def test_everything_survives_a_restart(store: ImageStore, add: Make) -> None:
    image = await add(KUBIA)
    again = ImageStore(store.root)
    assert again.get("kubia") == image
    assert await again.lower_dirs("kubia") == await store.lower_dirs(image.id)


async def test_lower_dirs_are_topmost_first_and_made_again_when_lost(
    store: ImageStore, add: Make, tar: Make, e: Make
) -> None:
    image = await add(KUBIA, layers=[tar(e("one", b"1")), tar(e("two", b"2"))])
    lower = await store.lower_dirs(image.id)
    assert [sorted(p.name for p in path.iterdir()) for path in lower] == [["two"], ["one"]]
    shutil.rmtree(lower[0])
    again = ImageStore(store.root)
    assert (await again.lower_dirs(image.id)) == lower
    assert (lower[0] / "two").read_bytes() == b"2"


async def test_images_share_layers(store: ImageStore, add: Make, tar: Make, e: Make) -> None:
    base = tar(e("base", b"x" * 100))
    one = await add("docker.io/library/one:latest", layers=[base])
    two = await add("docker.io/library/two:latest", layers=[base, tar(e("more", b"y"))])
    assert one.layers[0] == two.layers[0]
    assert len(list((store.root / "snapshots").glob("*.json"))) == 2
    await store.remove("one")
    assert (await store.lower_dirs("two"))[-1].joinpath("base").exists()


async def test_a_tag_moves(store: ImageStore, add: Make) -> None:
    first, second = await add(KUBIA, cmd=("1",)), await add(KUBIA, cmd=("2",))
    assert store.get("kubia").id == second.id
    assert store.get(first.id).repo_tags == ()
    removal = await store.prune()
    assert removal.deleted == (first.id,)
    assert [image.id for image in store.images()] == [second.id]


async def test_removal_is_dockers(store: ImageStore, add: Make) -> None:
    image = await add(KUBIA)
    await store.tag("kubia", "other:v2")
    removal = await store.remove("kubia")
    assert removal.untagged == (KUBIA,)
    assert removal.deleted == ()
    await store.tag("other:v2", "third")
    with pytest.raises(ImageInUse, match="several names"):
        await store.remove(image.id)
    removal = await store.remove(image.id, force=True)
    assert removal.deleted == (image.id,)
    assert removal.freed_bytes > 0
    assert store.usage().used_bytes == 0
    assert not list((store.root / "snapshots").iterdir())


async def test_an_image_in_use_stays_until_it_is_unpinned(store: ImageStore, add: Make) -> None:
    image = await add(KUBIA)
    store.pin("kubia", "container-1")
    with pytest.raises(ImageInUse, match="container-1"[:12]):
        await store.remove("kubia")
    await store.remove_image(image)  # CRI's way: gone from sight
    with pytest.raises(ImageNotFound):
        store.get("kubia")
    assert store.images() == []
    lower = await store.lower_dirs(image.id)
    assert lower[0].exists()
    again = ImageStore(store.root)  # after a restart the container pins anew
    again.pin(image.id, "container-1")
    await again.sweep()
    assert lower[0].exists()
    again.unpin(image.id, "container-1")
    await again.sweep()
    assert not lower[0].exists()


async def test_adding_a_removed_image_brings_it_back(store: ImageStore, add: Make) -> None:
    image = await add(KUBIA)
    store.pin(image.id, "c")
    await store.remove_image(image)
    assert (await add(KUBIA)).id == image.id
    assert store.get("kubia").repo_tags == (KUBIA,)


async def test_removals_at_once_all_succeed(store: ImageStore, add: Make) -> None:
    image = await add(KUBIA)
    await asyncio.gather(*(store.remove_image(image) for _ in range(5)))
    assert store.images() == []


async def test_a_sweep_spares_what_is_on_its_way_in(store: ImageStore) -> None:
    async with store.holding():
        digest = store.blobs.put(b"half an image")
        await store.sweep()
        assert digest in store.blobs
    await store.sweep()
    assert digest not in store.blobs


async def test_a_layer_that_is_not_what_the_config_says_is_refused(store: ImageStore, tar: Make, e: Make) -> None:
    wrong = ImageConfig(diff_ids=(store.blobs.put(b"x"),))
    data = tar(e("f", b"x"))
    layer = Descriptor(OCI_LAYER, store.blobs.put(data), len(data))
    with pytest.raises(ContentMismatch, match="the image config says"):
        await store.add_config(wrong, [layer], [KUBIA])
    assert store.images() == []
    assert not list((store.root / "unpacking").iterdir())


async def test_a_manifest_and_config_that_disagree_are_refused(store: ImageStore) -> None:
    with pytest.raises(InvalidManifest, match="1 layers and its config 0"):
        await store.add_config(ImageConfig(), [Descriptor(OCI_LAYER, store.blobs.put(b""), 0)], [KUBIA])
    index = store.blobs.put(b'{"schemaVersion":2,"manifests":[]}')
    with pytest.raises(InvalidManifest, match="index"):
        await store.add(Descriptor(OCI_INDEX, index, 1), {})


async def test_usage_counts_blobs_and_snapshots(store: ImageStore, add: Make, tar: Make, e: Make) -> None:
    assert store.usage().used_bytes == 0
    image = await add(KUBIA, layers=[tar(e("f", b"x" * 1000))])
    assert image.size_bytes == 1000
    assert store.usage().used_bytes > 1000
    assert store.usage().inodes >= 4


def test_a_catalog_of_another_release_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "catalog.json").write_text('{"version": 99}')
    with pytest.raises(ValueError, match="version 99"):
        ImageStore(tmp_path)
    assert (tmp_path / "catalog.json").read_text() == '{"version": 99}'
