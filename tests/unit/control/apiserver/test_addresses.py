"""Cluster IPs and node ports: nobody's twice, the owner's kept, the full range told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.api.errors import InternalError
from control.apiserver.addresses import Allocator, NotAvailable, Taken
from protos.k8s.core_v1_pb2 import Service


def service(type_: str = "ClusterIP", ip: str = "", node_port: int = 0) -> Service:
    made = Service()
    made.spec.type, made.spec.clusterIP = type_, ip
    made.spec.ports.add(port=80, protocol="TCP", nodePort=node_port)
    return made


@given(st.integers(0, 2**32))
def test_a_small_range_is_given_out_to_its_end_and_never_twice(start: int) -> None:
    allocator = Allocator("10.0.0.0/28", lambda count: start % count)
    taken = Taken()
    for _ in range(13):
        made = service()
        allocator.allocate(made, taken)
        assert made.spec.clusterIP not in taken.ips and made.spec.clusterIP != allocator.first
        taken.add(made)
    with pytest.raises(InternalError, match="is full"):
        allocator.allocate(service(), taken)


def test_what_is_asked_for_is_given_or_told() -> None:
    allocator = Allocator("10.0.0.0/24", lambda count: 0)
    taken = Taken.by([service("NodePort", "10.0.0.7", 30007)])
    for made, field, told in (
        (service(ip="10.0.0.7"), "spec.clusterIP", "already allocated"),
        (service(ip="10.1.0.7"), "spec.clusterIP", "not in the service range 10.0.0.0/24"),
        (service("NodePort", node_port=30007), "spec.ports[0].nodePort", "already allocated"),
        (service("NodePort", node_port=80), "spec.ports[0].nodePort", "range is 30000-32767"),
    ):
        with pytest.raises(NotAvailable, match=told) as caught:
            allocator.allocate(made, taken)
        assert caught.value.cause.field == field
    made = service(ip="10.0.0.9")
    allocator.allocate(made, taken)
    assert list(made.spec.clusterIPs) == ["10.0.0.9"] and list(made.spec.ipFamilies) == ["IPv4"]


def test_an_update_keeps_what_the_service_has_and_drops_what_its_type_does_not() -> None:
    allocator = Allocator("10.0.0.0/24", lambda count: 0)
    old = service("NodePort")
    allocator.allocate(old, Taken())
    new = service("LoadBalancer")
    allocator.allocate(new, Taken(), old)
    assert new.spec.clusterIP == old.spec.clusterIP and new.spec.ports[0].nodePort == old.spec.ports[0].nodePort
    plain = service("ClusterIP", new.spec.clusterIP, new.spec.ports[0].nodePort)
    allocator.allocate(plain, Taken(), new)
    assert plain.spec.clusterIP == old.spec.clusterIP and not plain.spec.ports[0].nodePort
    external = service("ExternalName")
    allocator.allocate(external, Taken(), plain)
    assert not external.spec.clusterIP


def test_a_range_without_addresses_is_refused() -> None:
    with pytest.raises(ValueError, match="use a larger one"):
        Allocator("10.0.0.1/32")
