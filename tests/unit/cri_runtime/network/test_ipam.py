"""The address pool against a plain dict, and its records."""

from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cri_runtime.network.errors import AddressesExhausted
from cri_runtime.network.ipam import AddressPool


def pool(directory: Path, cidr: str = "10.250.1.0/29") -> AddressPool:
    made = AddressPool(directory / "addresses", cidr)
    made.load()
    return made


def test_the_first_host_address_is_the_gateways(tmp_path: Path) -> None:
    assert pool(tmp_path).gateway == IPv4Interface("10.250.1.1/29")
    assert pool(tmp_path).allocate("a") == IPv4Interface("10.250.1.2/29")


def test_a_freed_address_rests_until_the_others_were_used(tmp_path: Path) -> None:
    addresses = pool(tmp_path)
    first = addresses.allocate("a")
    addresses.release("a")
    given_next = [addresses.allocate(owner) for owner in "bcde"]
    assert first not in given_next[:4]
    assert addresses.allocate("f") == first


def test_it_rests_over_a_restart_too(tmp_path: Path) -> None:
    before = pool(tmp_path)
    for owner in "abc":
        before.allocate(owner)
    before.release("a")
    assert str(pool(tmp_path).allocate("d").ip) == "10.250.1.5"


def test_the_owner_that_asks_again_gets_the_same(tmp_path: Path) -> None:
    addresses = pool(tmp_path)
    assert addresses.allocate("a") == addresses.allocate("a") == pool(tmp_path).allocate("a")


def test_records_of_an_earlier_cidr_are_freed_only_with_their_owner(tmp_path: Path) -> None:
    pool(tmp_path).allocate("old")
    moved = pool(tmp_path, "10.250.2.0/29")
    assert str(moved.allocate("new").ip) == "10.250.2.2"
    moved.reconcile({"new"})
    assert [link.name for link in (tmp_path / "addresses").iterdir()] == ["10.250.2.2"]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from(["take", "free", "crash"]), st.sampled_from("abcdefgh")), max_size=40))
def test_owners_and_addresses_stay_one_to_one(steps: list[tuple[str, str]], tmp_path: Path) -> None:
    addresses = pool(tmp_path)
    addresses.reconcile(set())
    held: dict[str, IPv4Interface] = {}
    for step, owner in steps:
        if step == "crash":
            addresses = pool(tmp_path)
        elif step == "free":
            addresses.release(owner)
            held.pop(owner, None)
        elif len(held) == 5 and owner not in held:
            with pytest.raises(AddressesExhausted):
                addresses.allocate(owner)
        else:
            held[owner] = addresses.allocate(owner)
        assert {o: a for a, o in addresses.owners().items()} == {o: i.ip for o, i in held.items()}
        assert len(set(held.values())) == len(held)
