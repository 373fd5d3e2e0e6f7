"""Archives: what save wrote, load reads; and what is no archive is said to be none. Needs root."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cri_runtime.images import archive
from cri_runtime.images.digest import Digest
from cri_runtime.images.errors import InvalidArchive
from cri_runtime.images.manifest import ImageConfig
from cri_runtime.images.store import ImageStore

pytestmark = pytest.mark.root
Make = Callable[..., Any]


def save(store: ImageStore, path: Path, *references: str, docker: bool = True) -> Path:
    """Save to a file."""
    path.write_bytes(b"".join(archive.save(store, archive.choose(store, references), docker)))
    return path


@pytest.mark.parametrize("docker", [True, False])
async def test_saved_images_load_as_they_were(
    docker: bool, store: ImageStore, add: Make, tar: Make, e: Make, tmp_path: Path
) -> None:
    one = await add("docker.io/library/one:latest", "docker.io/library/uno:v1", layers=[tar(e("a", b"1"))])
    two = await add(layers=[tar(e("a", b"1")), tar(e("b", b"2"))], cmd=("x",))
    path = save(store, tmp_path / "x.tar", "one", "uno:v1", two.id, docker=docker)
    other = ImageStore(tmp_path / "other")
    names = await archive.load(other, path)
    assert names == ["docker.io/library/one:latest", "docker.io/library/uno:v1", two.id]
    assert other.get("one") == one
    assert other.get(two.id) == two


async def test_a_name_goes_alone_and_an_id_takes_none(store: ImageStore, add: Make, tmp_path: Path) -> None:
    image = await add("docker.io/library/one:latest", "docker.io/library/uno:v1")
    other = ImageStore(tmp_path / "other")
    await archive.load(other, save(store, tmp_path / "x.tar", "uno:v1"))
    assert other.get(image.id).repo_tags == ("docker.io/library/uno:v1",)
    assert await archive.load(other, save(store, tmp_path / "x.tar", image.id)) == [image.id]


async def test_the_same_images_give_the_same_archive(store: ImageStore, add: Make, tmp_path: Path) -> None:
    await add("docker.io/library/one:latest")
    assert save(store, tmp_path / "a", "one").read_bytes() == save(store, tmp_path / "b", "one").read_bytes()


async def test_an_old_docker_archive_with_links_loads(store: ImageStore, tar: Make, e: Make, tmp_path: Path) -> None:
    layer = tar(e("f", b"x"))
    config = ImageConfig(diff_ids=(Digest.of(layer),) * 2).to_bytes()
    manifest = [{"Config": "c.json", "RepoTags": ["old:v1"], "Layers": ["1/layer.tar", "2/layer.tar"]}]
    with tarfile.open(tmp_path / "old.tar.gz", "w:gz") as out:
        for info, data in (
            e("1/layer.tar", layer),
            e("2/layer.tar", type=tarfile.SYMTYPE, linkname="../1/layer.tar"),
            e("c.json", config),
            e("manifest.json", json.dumps(manifest).encode()),
        ):
            out.addfile(info, io.BytesIO(data))
    assert await archive.load(store, tmp_path / "old.tar.gz") == ["docker.io/library/old:v1"]
    assert len(await store.lower_dirs("old:v1")) == 2


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({}, "neither"),
        ({"manifest.json": b"[]"}, "no image"),
        ({"manifest.json": b"{"}, "not JSON"),
        ({"manifest.json": b'[{"Config":"gone.json"}]'}, 'speaks of "gone.json"'),
        ({"oci-layout": b"{}", "index.json": b'{"manifests":[]}'}, "no image"),
        (
            {
                "oci-layout": b"{}",
                "index.json": b'{"manifests":[{"mediaType":"x","size":1,"digest":"sha256:%s"}]}' % (b"a" * 64),
            },
            "does not hold",
        ),
    ],
)
async def test_what_is_no_archive_is_refused(
    entries: dict[str, bytes], says: str, store: ImageStore, tar: Make, e: Make, tmp_path: Path
) -> None:
    (tmp_path / "x.tar").write_bytes(tar(*(e(name, data) for name, data in entries.items())))
    with pytest.raises(InvalidArchive, match=says):
        await archive.load(store, tmp_path / "x.tar")
    assert store.images() == []
    await store.sweep()
    assert store.usage().used_bytes == 0


async def test_noise_is_refused(store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(os.urandom(5000))
    with pytest.raises(InvalidArchive, match="no archive of images"):
        await archive.load(store, tmp_path / "noise")
