"""The store under SIGKILL and on a full disk. Needs root."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cri_runtime.images.blobs import BlobStore
from cri_runtime.images.digest import Digest
from cri_runtime.images.manifest import OCI_LAYER, Descriptor, ImageConfig
from cri_runtime.images.store import ImageStore

pytestmark = pytest.mark.root
Make = Callable[..., Any]

WORKER = """
import asyncio, io, sys, tarfile
from pathlib import Path
from cri_runtime.images.layer import LayerWriter, file_entry
from cri_runtime.images.manifest import ImageConfig
from cri_runtime.images.store import ImageStore

def layer(store, name):
    with LayerWriter(store.blobs) as writer:
        writer.add(file_entry(name, 3), io.BytesIO(b"abc"))
        return writer.commit()

async def main():
    store = ImageStore(Path(sys.argv[1]))
    for n in range(100000):
        async with store.holding():
            made = [layer(store, f"{n % 3}"), layer(store, f"x{n}")]
            config = ImageConfig(diff_ids=tuple(m.diff_id for m in made))
            await store.add_config(config, [m.descriptor for m in made], [f"docker.io/library/t{n % 4}:latest"])
        print(n, flush=True)
        if n % 3 == 2:
            await store.prune()

asyncio.run(main())
"""


@pytest.mark.parametrize("rounds", [3, 8, 14])
async def test_a_killed_store_opens_with_whole_images(tmp_path: Path, rounds: int) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, str(tmp_path / "store"), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    for _ in range(rounds):
        await process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    store = ImageStore(tmp_path / "store")
    images = store.images()
    assert images
    for image in images:
        top, bottom = await store.lower_dirs(image.id)
        assert [p.read_bytes() for p in (*top.iterdir(), *bottom.iterdir())] == [b"abc"] * 2
        assert Digest.of(store.blobs.read(image.layers[0].descriptor.digest)) == image.layers[0].descriptor.digest
    await store.prune(unused=True)
    assert store.usage().used_bytes == 0
    assert not list((store.root / "unpacking").iterdir())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


async def test_a_full_disk_leaves_the_store_as_it_was(small_disk: Path, tar: Make, e: Make) -> None:
    store = ImageStore(small_disk / "store")
    data = tar(e("big", bytes(600_000)))
    layer = Descriptor(OCI_LAYER, store.blobs.put(data), len(data))
    with pytest.raises(OSError) as caught:  # the blob fits, the blob and its snapshot do not
        await store.add_config(ImageConfig(diff_ids=(layer.digest,)), [layer], ["docker.io/library/x:latest"])
    assert caught.value.errno == errno.ENOSPC
    assert store.images() == []
    assert not list((store.root / "unpacking").iterdir())
    await store.sweep()
    assert store.usage().used_bytes == 0


def test_a_blob_too_large_for_the_disk_is_thrown_away(small_disk: Path) -> None:
    blobs = BlobStore(small_disk)
    with pytest.raises(OSError) as caught:
        blobs.put(bytes(2_000_000))
    assert caught.value.errno == errno.ENOSPC
    assert not list((small_disk / "ingest").iterdir())
    assert blobs.put(b"small") in blobs
