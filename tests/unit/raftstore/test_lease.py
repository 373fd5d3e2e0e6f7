"""Leases: the replicated part and the leader's clock."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from raftstore.errors import LeaseExists, LeaseNotFound
from raftstore.lease import Deadlines, Lessor
from raftstore.mvcc.backend import Backend
from raftstore.mvcc.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    backend = Backend(tmp_path, 64 << 20)
    yield Store(backend)
    backend.close()


@pytest.fixture
def lessor(store: Store) -> Lessor:
    return Lessor(store.backend, store)


def put(store: Store, lessor: Lessor, key: bytes, lease: int) -> None:
    write = store.write()
    write.put(key, b"", lease)
    write.end()
    lessor.attach(key, lease)


def test_revoking_deletes_attached_keys_in_key_order_in_one_revision(store: Store, lessor: Lessor) -> None:
    lessor.grant(7, 10)
    for key in (b"b", b"a", b"c"):
        put(store, lessor, key, 7)
    put(store, lessor, b"c", 0)
    write = store.write()
    lessor.revoke(7, write)
    events = write.end()
    assert [(event.kv.key, event.deleted) for event in events] == [(b"a", True), (b"b", True)]
    assert {event.kv.mod_revision for event in events} == {store.revision}
    assert store.get(b"c") is not None


def test_revoking_a_lease_without_keys_makes_no_revision(store: Store, lessor: Lessor) -> None:
    lessor.grant(7, 10)
    write = store.write()
    lessor.revoke(7, write)
    assert write.end() == []
    assert store.revision == 1


def test_a_key_belongs_to_its_last_lease_only(store: Store, lessor: Lessor) -> None:
    lessor.grant(1, 10)
    lessor.grant(2, 10)
    put(store, lessor, b"a", 1)
    put(store, lessor, b"a", 2)
    assert (lessor.get(1).keys, lessor.get(2).keys) == (set(), {b"a"})


def test_ids_are_unique_and_unknown_ones_refused(store: Store, lessor: Lessor) -> None:
    lessor.grant(1, 10)
    with pytest.raises(LeaseExists):
        lessor.grant(1, 10)
    with pytest.raises(LeaseNotFound):
        lessor.revoke(2, store.write())


def test_leases_and_their_keys_survive_a_restart(store: Store, lessor: Lessor) -> None:
    lessor.grant(1, 10)
    lessor.grant(2, 20)
    put(store, lessor, b"a", 1)
    lessor.revoke(2, store.write())
    store.backend.write(store.backend.take_checkpoint())
    store.backend.finish_checkpoint()
    again = Lessor(store.backend, Store(store.backend))
    assert {id: (lease.ttl_s, lease.keys) for id, lease in again.leases.items()} == {1: (10, {b"a"})}


def test_a_lease_ends_at_its_ttl_and_is_reported_once() -> None:
    clock = Deadlines()
    clock.renew(1, 10, now=0)
    clock.renew(2, 5, now=0)
    assert clock.next_end() == 5
    assert clock.expired(now=4.9) == []
    assert clock.expired(now=5) == [2]
    assert clock.expired(now=5) == []
    assert clock.next_end() == 10


def test_renewing_restarts_the_full_ttl() -> None:
    clock = Deadlines()
    clock.renew(1, 10, now=0)
    clock.renew(1, 10, now=8)
    assert clock.expired(now=12) == []
    assert clock.remaining_s(1, now=12) == 6
    assert clock.expired(now=18) == [1]


def test_a_forgotten_lease_does_not_expire() -> None:
    clock = Deadlines()
    clock.renew(1, 10, now=0)
    clock.forget(1)
    assert clock.next_end() is None
    assert clock.expired(now=20) == []
    with pytest.raises(LeaseNotFound):
        clock.remaining_s(1, now=0)


def test_leases_are_listed_by_their_end() -> None:
    clock = Deadlines()
    for id, ttl_s in ((1, 30), (2, 10), (3, 20)):
        clock.renew(id, ttl_s, now=0)
    assert clock.by_end() == [2, 3, 1]


def test_many_renewals_do_not_pile_up() -> None:
    clock = Deadlines()
    for now in range(10_000):
        clock.renew(1, 10, now=now)
    assert len(clock._heap) < 100
