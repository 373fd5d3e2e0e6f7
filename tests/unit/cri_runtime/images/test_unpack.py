"""Unpacking hostile and honest layers. Needs root: owners, device nodes, trusted attributes."""

import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cri_runtime.images.errors import UnsafeLayer
from cri_runtime.images.tree import OPAQUE_XATTR
from cri_runtime.images.unpack import Limits

pytestmark = pytest.mark.root

Make = Callable[..., Any]


def is_whiteout(path: Path) -> bool:
    """Whether overlayfs takes ``path`` for absence."""
    st = path.lstat()
    return stat.S_ISCHR(st.st_mode) and st.st_rdev == 0


def test_files_keep_owner_mode_time_and_content(tar: Make, e: Make, unpacked: Make) -> None:
    root, usage = unpacked(
        tar(
            e("etc", mode=0o700, uid=7, gid=8, mtime=1234),
            e("etc/app", b"data", mode=0o4755, uid=1, gid=2, mtime=99.5, pax_headers={"mtime": "99.123456789"}),
            e("etc/link", type=tarfile.SYMTYPE, linkname="app"),
            e("etc/hard", type=tarfile.LNKTYPE, linkname="etc/app"),
            e("fifo", type=tarfile.FIFOTYPE),
        )
    )
    st = (root / "etc/app").stat()
    assert (st.st_mode & 0o7777, st.st_uid, st.st_gid, st.st_mtime_ns) == (0o4755, 1, 2, 99_123_456_789)
    folder = (root / "etc").stat()
    assert (folder.st_mode & 0o7777, folder.st_uid, folder.st_gid, folder.st_mtime) == (0o700, 7, 8, 1234)
    assert (root / "etc/hard").stat().st_ino == st.st_ino
    assert (root / "etc/link").readlink() == Path("app")
    assert stat.S_ISFIFO((root / "fifo").stat().st_mode)
    assert usage.size_bytes == 4


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/../evil", "./../evil", "..", ".wh...", "x/.wh..."])
def test_names_that_leave_the_root_are_refused(name: str, tar: Make, e: Make, unpacked: Make, tmp_path: Path) -> None:
    with pytest.raises(UnsafeLayer, match=r"leads out|whiteout of nothing"):
        unpacked(tar(e(name, b"x")))
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("target", ["/", "/etc", "../../../../../../tmp", "..", "../outside"])
def test_a_link_does_not_lead_writes_out(target: str, tar: Make, e: Make, unpacked: Make, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root, _ = unpacked(tar(e("door", type=tarfile.SYMTYPE, linkname=target), e("door/pwned-by-test", b"x")))
    assert not list(outside.iterdir())
    assert not Path(target if target.startswith("/") else "/nonexistent", "pwned-by-test").exists()
    found = [p for p in root.rglob("pwned-by-test") if p.is_file() and not p.is_symlink()]
    assert len(found) == 1


def test_a_file_over_a_link_replaces_the_link(tar: Make, e: Make, unpacked: Make, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("safe")
    root, _ = unpacked(tar(e("f", type=tarfile.SYMTYPE, linkname=str(victim)), e("f", b"evil")))
    assert victim.read_text() == "safe"
    assert (root / "f").read_bytes() == b"evil"


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../etc/passwd", "nowhere", "d", "door/passwd"])
def test_hard_links_do_not_reach_out(target: str, tar: Make, e: Make, unpacked: Make) -> None:
    with pytest.raises(UnsafeLayer):
        unpacked(
            tar(
                e("d"),
                e("door", type=tarfile.SYMTYPE, linkname="/etc"),
                e("h", type=tarfile.LNKTYPE, linkname=target),
            )
        )


def test_a_device_that_would_hide_files_is_refused(tar: Make, e: Make, unpacked: Make) -> None:
    with pytest.raises(UnsafeLayer, match="hides"):
        unpacked(tar(e("x", type=tarfile.CHRTYPE, devmajor=0, devminor=0)))


def test_overlay_attributes_of_an_image_are_dropped(tar: Make, e: Make, unpacked: Make) -> None:
    headers = {
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.security.selinux": "x",
        "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00" + "\x00" * 12,
        "SCHILY.xattr.user.kept": "yes",
    }
    root, _ = unpacked(tar(e("f", b"", pax_headers=headers)))
    kept = {key for key in os.listxattr(root / "f") if "selinux" not in key}
    assert kept <= {"user.kept", "security.capability"}
    assert "security.capability" in kept


def test_a_base_layer_has_no_whiteouts(tar: Make, e: Make, unpacked: Make) -> None:
    root, _ = unpacked(tar(e(".wh.gone", b""), e("d"), e("d/.wh..wh..opq", b"")))
    assert sorted(p.name for p in root.iterdir()) == ["d"]
    assert OPAQUE_XATTR not in os.listxattr(root / "d")


def test_whiteouts_hide_what_lies_below(tar: Make, e: Make, unpacked: Make) -> None:
    low, _ = unpacked(tar(e("gone", b"x"), e("dir"), e("dir/old", b"x"), e("again"), e("again/old", b"x")))
    top, _ = unpacked(
        tar(
            e(".wh.gone", b""),
            e("dir"),
            e("dir/.wh..wh..opq", b""),
            e(".wh.again", b""),
            e("again"),
            e("again/new", b"y"),
            e(".wh..wh.plnk", b""),
        ),
        [low],
    )
    assert is_whiteout(top / "gone")
    assert os.getxattr(top / "dir", OPAQUE_XATTR) == b"y"
    assert os.getxattr(top / "again", OPAQUE_XATTR) == b"y"
    assert not (top / ".wh..wh.plnk").exists()


def test_a_whiteout_spares_what_its_own_layer_has(tar: Make, e: Make, unpacked: Make) -> None:
    """layer.md: whiteouts apply to lower layers only, whatever the order in the tar."""
    low, _ = unpacked(tar(e("f", b"old"), e("d"), e("d/old", b"")))
    top, _ = unpacked(tar(e("f", b"new"), e(".wh.f", b""), e("d"), e("d/new", b""), e(".wh.d", b"")), [low])
    assert (top / "f").read_bytes() == b"new"
    assert os.getxattr(top / "d", OPAQUE_XATTR) == b"y"
    assert (top / "d/new").exists()


def test_an_opaque_root_hides_every_name(tar: Make, e: Make, unpacked: Make) -> None:
    low, _ = unpacked(tar(e("a", b"x"), e("b")))
    top, _ = unpacked(tar(e(".wh..wh..opq", b""), e("b"), e("b/kept", b"")), [low])
    assert is_whiteout(top / "a")
    assert os.getxattr(top / "b", OPAQUE_XATTR) == b"y"


def test_entries_follow_links_of_lower_layers(tar: Make, e: Make, unpacked: Make) -> None:
    low, _ = unpacked(
        tar(e("usr"), e("usr/lib", mode=0o711, uid=5), e("lib", type=tarfile.SYMTYPE, linkname="usr/lib"))
    )
    top, _ = unpacked(tar(e("lib/x", b"x")), [low])
    assert (top / "usr/lib/x").read_bytes() == b"x"
    assert not (top / "lib").exists()
    st = (top / "usr/lib").stat()
    assert (st.st_mode & 0o7777, st.st_uid) == (0o711, 5)  # the merged directory keeps what it had


def test_a_hard_link_to_a_lower_layers_file_brings_it_up(tar: Make, e: Make, unpacked: Make) -> None:
    low, _ = unpacked(tar(e("d"), e("d/f", b"data", mode=0o600, uid=3)))
    top, _ = unpacked(tar(e("h", type=tarfile.LNKTYPE, linkname="d/f")), [low])
    assert (top / "h").read_bytes() == b"data"
    assert (top / "h").stat().st_ino == (top / "d/f").stat().st_ino
    assert (top / "h").stat().st_uid == 3


def test_a_file_where_a_directory_was(tar: Make, e: Make, unpacked: Make) -> None:
    root, _ = unpacked(tar(e("a"), e("a/b", b"x"), e("a", b"now a file"), e("c", b"f"), e("c"), e("c/d", b"x")))
    assert (root / "a").read_bytes() == b"now a file"
    assert (root / "c/d").read_bytes() == b"x"


def test_a_path_through_a_file_is_refused(tar: Make, e: Make, unpacked: Make) -> None:
    with pytest.raises(UnsafeLayer, match="no directory"):
        unpacked(tar(e("a", b"file"), e("a/b", b"x")))


def test_bounds(tar: Make, e: Make, unpacked: Make) -> None:
    with pytest.raises(UnsafeLayer, match="more than 3 entries"):
        unpacked(tar(*(e(f"f{n}", b"") for n in range(5))), limits=Limits(entries=3))
    with pytest.raises(UnsafeLayer, match="times its own size"):
        unpacked(tar(e("big", bytes(3 << 20))), limits=Limits(free_bytes=1 << 20, ratio=1))
    with pytest.raises(UnsafeLayer, match="can have this name"):
        unpacked(tar(e("x" * 300, b"")))
    with pytest.raises(UnsafeLayer, match="owner"):
        unpacked(tar(e("x", b"", uid=-1)))


def test_a_header_that_would_fill_the_memory_is_refused(unpacked: Make) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 32
    with pytest.raises(UnsafeLayer, match="claims"):
        unpacked(info.tobuf(tarfile.USTAR_FORMAT) + b"\0" * 4096)


@pytest.mark.parametrize("data", [b"garbage" * 200, b"\x1f\x8bgarbage", b"\x28\xb5\x2f\xfdgarbage"])
def test_garbage_is_refused(data: bytes, unpacked: Make) -> None:
    with pytest.raises(UnsafeLayer):
        unpacked(data)


def test_sparse_and_long_names(tmp_path: Path, unpacked: Make) -> None:
    source = tmp_path / "source"
    deep = source / "/".join(["d" * 100] * 5)
    deep.mkdir(parents=True)
    with (deep / "sparse").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(500_000)
        file.write(b"data")
    assert os.system(f"tar -C {source} -S -cf {tmp_path}/s.tar .") == 0
    root, _ = unpacked((tmp_path / "s.tar").read_bytes())
    copy = root / deep.relative_to(source) / "sparse"
    assert copy.read_bytes() == (deep / "sparse").read_bytes()
    assert copy.stat().st_blocks * 512 < 1 << 20
