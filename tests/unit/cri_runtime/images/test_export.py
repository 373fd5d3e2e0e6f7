"""The merged root file system as a tar."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from cri_runtime.images.export import export

pytestmark = pytest.mark.root


def test_layers_become_one_tar(tmp_path: Path) -> None:
    top, base = tmp_path / "top", tmp_path / "base"
    for folder in (top, base):
        (folder / "d").mkdir(parents=True)
    (base / "d/old").write_text("old")
    (base / "d/kept").write_text("kept" * 1000)
    (base / "d/hard").hardlink_to(base / "d/kept")
    (base / "gone").write_text("")
    (base / "link").symlink_to("d/kept")
    (top / "d/old").write_text("new")
    (top / "d").chmod(0o711)
    os.mknod(top / "gone", 0o600 | 0o020000, 0)
    os.mkfifo(base / "fifo")
    data = b"".join(export([top, base]))
    assert data == b"".join(export([top, base]))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["d", "d/hard", "d/kept", "d/old", "fifo", "link"]
        assert tar.getmember("d").mode == 0o711
        assert tar.getmember("d/kept").linkname == "d/hard"
        assert tar.extractfile("d/old").read() == b"new"  # type: ignore[union-attr]
        assert tar.extractfile("d/kept").read() == b"kept" * 1000  # type: ignore[union-attr]
        assert (tar.getmember("link").linkname, tar.getmember("fifo").isfifo()) == ("d/kept", True)


def test_no_layers() -> None:
    with tarfile.open(fileobj=io.BytesIO(b"".join(export([])))) as tar:
        assert tar.getnames() == []
