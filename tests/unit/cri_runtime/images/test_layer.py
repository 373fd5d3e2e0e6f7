"""Compressed streams in, reproducible streams out."""

import gzip
import io
from pathlib import Path

import pytest
import zstandard

from cri_runtime.images.blobs import BlobStore
from cri_runtime.images.digest import Digest
from cri_runtime.images.errors import UnsafeLayer
from cri_runtime.images.layer import LayerReader, LayerWriter, directory_entry, file_entry

DATA = bytes(range(256)) * 5000


@pytest.mark.parametrize(
    "blob",
    [
        DATA,
        gzip.compress(DATA),
        gzip.compress(DATA[:1000]) + gzip.compress(DATA[1000:]),
        gzip.compress(DATA) + b"\0" * 512,
        zstandard.ZstdCompressor().compress(DATA),
        zstandard.ZstdCompressor().compress(DATA[:7]) + zstandard.ZstdCompressor().compress(DATA[7:]),
    ],
    ids=["plain", "gzip", "members", "padded", "zstd", "frames"],
)
def test_a_layer_reads_the_same_however_it_is_compressed(blob: bytes) -> None:
    assert LayerReader(io.BytesIO(blob)).read() == DATA
    assert LayerReader(io.BytesIO(blob)).diff_id() == Digest.of(DATA)


@pytest.mark.parametrize("cut", [10, 20, 200])
def test_a_truncated_stream_is_refused(cut: int) -> None:
    with pytest.raises(UnsafeLayer, match="too early"):
        LayerReader(io.BytesIO(gzip.compress(DATA)[:-cut])).read()


def test_a_bomb_comes_in_bounded_steps() -> None:
    reader = LayerReader(io.BytesIO(gzip.compress(bytes(64 << 20))))
    buffer = bytearray(8 << 20)
    assert 0 < reader.readinto(memoryview(buffer)) <= 1 << 20


def test_the_same_entries_give_the_same_layer(tmp_path: Path) -> None:
    def write(root: Path) -> tuple[Digest, Digest, bytes]:
        blobs = BlobStore(root)
        with LayerWriter(blobs) as writer:
            writer.add(directory_entry("d", 0o750, 1, 2))
            writer.add(file_entry("d/f", 5, mtime=77), io.BytesIO(b"hello"))
            written = writer.commit()
        with blobs.open(written.descriptor.digest) as blob:
            return written.descriptor.digest, written.diff_id, LayerReader(blob).read()

    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    assert first == second
    assert Digest.of(first[2]) == first[1]


def test_an_abandoned_layer_leaves_nothing(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    with LayerWriter(blobs) as writer:
        writer.add(directory_entry("d"))
    assert not list((tmp_path / "ingest").iterdir())
    assert not list(blobs.digests())
