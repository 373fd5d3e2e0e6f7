"""Resolving paths inside an image: links are followed, and never out."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri_runtime.images.errors import UnsafeLayer
from cri_runtime.images.tree import OPAQUE_XATTR, Stack, Tree, resolve, split

names = st.sampled_from(["a", "b", "c", ".."])
paths = st.lists(names, max_size=5).map(tuple)
targets = st.tuples(st.sampled_from(["", "/"]), st.lists(names, min_size=1, max_size=4)).map(
    lambda t: t[0] + "/".join(t[1])
)
places = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=2).map(tuple)


@given(paths, st.dictionaries(places, targets, max_size=4))
def test_a_resolved_path_has_no_links_and_no_parents_in_it(
    path: tuple[str, ...], links: dict[tuple[str, ...], str]
) -> None:
    try:
        place = resolve(path, links.get, follow_last=True)
    except UnsafeLayer:
        return  # a loop
    assert ".." not in place
    assert all(place[:depth] not in links for depth in range(1, len(place) + 1))


def test_loops_end() -> None:
    with pytest.raises(UnsafeLayer, match="symbolic links"):
        resolve(("a", "x"), {("a",): "b", ("b",): "a"}.get)


def test_a_link_at_the_end_is_followed_only_when_asked() -> None:
    links = {("a",): "/b/c"}
    assert resolve(("a",), links.get) == ("a",)
    assert resolve(("a",), links.get, follow_last=True) == ("b", "c")
    assert resolve(split("a/../../d"), links.get) == ("d",)


@pytest.mark.root
def test_a_stack_reads_as_overlayfs_merges(tmp_path: Path) -> None:
    low, mid, top = (tmp_path / name for name in ("low", "mid", "top"))
    (low / "d").mkdir(parents=True)
    (low / "d/one").write_text("1")
    (low / "d/two").write_text("2")
    (low / "opaque").mkdir()
    (low / "opaque/old").write_text("x")
    (mid / "d").mkdir(parents=True)
    os.mknod(mid / "d/one", 0o020000, os.makedev(0, 0))
    (mid / "opaque").mkdir()
    os.setxattr(mid / "opaque", OPAQUE_XATTR, b"y")
    (mid / "opaque/new").write_text("x")
    (top / "d").mkdir(parents=True)
    (top / "d/three").write_text("3")
    with Tree(top) as t, Tree(mid) as m, Tree(low) as lo:
        stack = Stack([t, m, lo])
        assert stack.listdir(("d",)) == ["three", "two"]
        assert stack.lookup(("d", "one")) is None
        assert stack.listdir(("opaque",)) == ["new"]
        assert stack.lookup(("opaque", "old")) is None


@pytest.mark.root
def test_a_link_in_a_lower_layer_that_a_directory_hides_leads_nowhere(tmp_path: Path) -> None:
    """Reading low/a/passwd by path would open the host's /etc/passwd."""
    low, top = tmp_path / "low", tmp_path / "top"
    low.mkdir()
    (low / "a").symlink_to("/etc")
    (top / "a").mkdir(parents=True)
    with Tree(top) as t, Tree(low) as lo:
        stack = Stack([t, lo])
        assert stack.lookup(("a", "passwd")) is None
        assert stack.listdir(("a",)) == []
