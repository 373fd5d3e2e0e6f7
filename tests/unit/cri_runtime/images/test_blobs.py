"""The blob store: whole blobs or none."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cri_runtime.images.blobs import BlobStore
from cri_runtime.images.digest import Digest
from cri_runtime.images.errors import BlobNotFound, ContentMismatch


def test_a_blob_is_found_under_its_digest(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    digest = blobs.put(b"data")
    assert digest == Digest.of(b"data")
    assert digest in blobs
    assert blobs.read(digest) == b"data"
    assert blobs.size(digest) == 4
    assert list(BlobStore(tmp_path).digests()) == [digest]


def test_content_that_is_another_is_thrown_away(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    with pytest.raises(ContentMismatch, match="digest"):
        blobs.put(b"data", Digest.of(b"other"))
    with blobs.writer() as writer, pytest.raises(ContentMismatch, match="4 bytes where 5"):
        writer.write(b"data")
        writer.commit(Digest.of(b"data"), 5)
    assert not list(blobs.digests())
    assert not list((tmp_path / "ingest").iterdir())


def test_sha512_is_a_digest_too(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    digest = Digest.of(b"data", "sha512")
    with blobs.writer("sha256") as writer:  # begun before the digest was known
        writer.write(b"data")
        assert writer.commit(digest) == digest
    assert blobs.read(digest) == b"data"


def test_absent_blobs_are_named(tmp_path: Path) -> None:
    with pytest.raises(BlobNotFound, match="sha256:"):
        BlobStore(tmp_path).read(Digest.of(b"x"))


def test_sweep_spares_what_is_kept_and_what_is_fresh(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    kept, old = blobs.put(b"kept"), blobs.put(b"old!")
    blobs.fresh.clear()
    fresh = blobs.put(b"fresh")
    assert blobs.sweep({kept}) == 4
    assert set(blobs.digests()) == {kept, fresh}
    assert old not in blobs


WRITER = """
import sys
from pathlib import Path
from cri_runtime.images.blobs import BlobStore
blobs = BlobStore(Path(sys.argv[1]))
print("ready", flush=True)
for n in range(100000):
    blobs.put(b"x" * n)
"""


def test_a_killed_writer_leaves_whole_blobs_only(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while len(list((tmp_path / "blobs/sha256").iterdir())) < 20:
            pass
        os.kill(process.pid, signal.SIGKILL)
    blobs = BlobStore(tmp_path)
    assert not list((tmp_path / "ingest").iterdir())
    for digest in blobs.digests():
        assert Digest.of(blobs.read(digest)) == digest
