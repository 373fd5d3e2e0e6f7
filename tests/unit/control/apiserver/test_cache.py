"""The watch cache: cursors, the ring's end, the end of the cache."""

import pytest

from control.api.errors import Expired, Unavailable
from control.apiserver.cache import Cache
from control.apiserver.storage import Stored
from protos.k8s import core_v1_pb2 as core


def item(name: str, revision: int) -> Stored:
    obj = core.ConfigMap()
    obj.metadata.name, obj.metadata.resourceVersion = name, str(revision)
    return Stored(f"/registry/configmaps/default/{name}", obj, revision)


def feed(cache: Cache, *revisions: int) -> None:
    for revision in revisions:
        cache.put(item(f"c{revision % 3}", revision))
        cache.advance(revision)


def test_a_cursor_gives_every_change_after_its_revision_once() -> None:
    cache = Cache(size=8)
    cache.reset([item("c0", 3)], 5)
    feed(cache, 6, 7)
    cursor = cache.cursor(6)
    assert [change.revision for change in cursor.take()] == [7] and cursor.take() == []
    feed(cache, 8)
    cache.remove("/registry/configmaps/default/c0", 9)
    changes = cursor.take()
    assert [(c.revision, c.now is None) for c in changes] == [(8, False), (9, True)]
    assert changes[1].last().metadata.resourceVersion == "9"
    assert [i.key[-2:] for i in cache.items("/registry/configmaps/default/")] == ["c1", "c2"]


def test_a_cursor_of_the_future_skips_what_comes_before_it() -> None:
    cache = Cache()
    cache.reset([], 5)
    cursor = cache.cursor(7)
    feed(cache, 6, 7, 8)
    assert [change.revision for change in cursor.take()] == [8]


def test_the_past_beyond_the_ring_has_expired() -> None:
    cache = Cache(size=4)
    cache.reset([], 10)
    with pytest.raises(Expired, match=r"too old resource version: 9 \(10\)"):
        cache.cursor(9)
    slow = cache.cursor(10)
    feed(cache, *range(11, 17))
    assert cache.floor == 12
    with pytest.raises(Expired):
        cache.cursor(11)
    assert [change.revision for change in cache.cursor(12).take()] == [13, 14, 15, 16]
    with pytest.raises(Expired):
        slow.take()


async def test_watchers_are_woken_by_changes_and_told_of_the_end() -> None:
    cache = Cache()
    cache.reset([], 1)
    cursor = cache.cursor(1)
    await cursor.wait(0.01)
    assert not cursor.behind
    feed(cache, 2)
    await cursor.wait(10)
    assert cursor.behind and len(cursor.take()) == 1
    cache.reset([], 9)
    with pytest.raises(Expired):
        cursor.take()
    cache.close(lambda: Unavailable("stopping"))
    with pytest.raises(Unavailable):
        cache.cursor(9).take()
