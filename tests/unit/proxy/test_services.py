"""From Service and EndpointSlice objects to listeners, rule by rule."""

import hypothesis.strategies as st
import pytest
from google.protobuf import text_format
from hypothesis import given, settings

from protos.k8s.core_v1_pb2 import Endpoints, Service
from protos.k8s.discovery_v1_pb2 import EndpointSlice
from proxy.balancer import Backend, Policy
from proxy.services import plan_listeners, service_of


def service(text):
    return text_format.Parse(f'metadata {{ namespace: "default" name: "web" }} spec {{ {text} }}', Service())


def endpoint_slice(text):
    return text_format.Parse(text, EndpointSlice())


ONE = endpoint_slice('endpoints { addresses: "10.244.0.2" } ports { name: "" port: 8080 protocol: "TCP" }')
PLAIN = 'clusterIP: "10.96.0.1" ports { port: 80 }'


def ways(listeners):
    return [(each.role, each.address, each.port) for each in listeners]


def targets(listeners):
    return [[f"{b.address}:{b.port}" for b in each.backends] for each in listeners]


def test_cluster_ip_leads_to_the_slice():
    (listener,) = plan_listeners(service(PLAIN), [ONE])
    assert ways([listener]) == [("ClusterIP", "10.96.0.1", 80)]
    assert listener.backends == (Backend("10.244.0.2", 8080),)
    assert (listener.namespace, listener.service, listener.protocol) == ("default", "web", "TCP")


@pytest.mark.parametrize(
    "text",
    [
        'clusterIP: "None" ports { port: 80 }',
        'type: "ExternalName" externalName: "example.org" ports { port: 80 }',
        'clusterIP: "" ports { port: 80 }',
        'clusterIP: "10.96.0.1"',
        'clusterIP: "not an address" ports { port: 80 }',
        'clusterIP: "10.96.0.1" ports { port: 70000 }',
        'clusterIP: "10.96.0.1" ports { }',
    ],
)
def test_nothing_to_listen_on(text):
    assert plan_listeners(service(text), [ONE]) == []


def test_every_way_to_a_load_balancer():
    web = service(
        'type: "LoadBalancer" clusterIP: "10.96.0.1" externalIPs: "192.0.2.7" loadBalancerSourceRanges: "10.0.0.0/8" '
        "ports { port: 80 nodePort: 30080 }"
    )
    web.status.loadBalancer.ingress.add(ip="10.98.0.1")
    web.status.loadBalancer.ingress.add(ip="10.98.0.2", ipMode="Proxy")  # KEP-1860: not ours to intercept
    web.status.loadBalancer.ingress.add(hostname="lb.example.org")
    listeners = plan_listeners(web, [ONE])
    assert ways(listeners) == [
        ("ClusterIP", "10.96.0.1", 80),
        ("ExternalIP", "192.0.2.7", 80),
        ("LoadBalancer", "10.98.0.1", 80),
        ("NodePort", "0.0.0.0", 30080),
    ]
    assert [each.sources for each in listeners] == [(), (), ("10.0.0.0/8",), ()]


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], ()),
        (["10.0.0.0/8", " 192.0.2.1/32 "], ("10.0.0.0/8", "192.0.2.1/32")),
        (["10.0.0.0/8", "10.0.0.0/99"], ("10.0.0.0/8",)),
        (["everybody"], ("0.0.0.0/32",)),
    ],
)
def test_source_ranges(ranges, expected):
    web = service('type: "LoadBalancer" ports { port: 80 }')
    web.spec.loadBalancerSourceRanges.extend(ranges)
    web.status.loadBalancer.ingress.add(ip="10.98.0.1")
    assert [each.sources for each in plan_listeners(web, [ONE])] == [expected]


def test_node_port_number_of_a_plain_cluster_ip_is_ignored():
    assert ways(plan_listeners(service('clusterIP: "10.96.0.1" ports { port: 80 nodePort: 30080 }'), [ONE])) == [
        ("ClusterIP", "10.96.0.1", 80)
    ]


def test_ingress_of_a_service_that_is_no_load_balancer_any_more_is_ignored():
    web = service('type: "NodePort" clusterIP: "10.96.0.1" ports { port: 80 nodePort: 30080 }')
    web.status.loadBalancer.ingress.add(ip="10.98.0.1")
    assert [role for role, _, _ in ways(plan_listeners(web, [ONE]))] == ["ClusterIP", "NodePort"]


def test_each_address_is_listed_once():
    web = service('clusterIP: "10.96.0.1" externalIPs: "10.96.0.1" ports { port: 80 }')
    assert ways(plan_listeners(web, [ONE])) == [("ClusterIP", "10.96.0.1", 80)]


def test_ports_are_matched_by_name_and_protocol():
    web = service(
        'clusterIP: "10.96.0.1" ports { name: "http" port: 80 } ports { name: "dns" port: 53 protocol: "UDP" } '
        'ports { name: "admin" port: 81 }'
    )
    both = endpoint_slice(
        'endpoints { addresses: "10.244.0.2" } ports { name: "http" port: 8080 } '
        'ports { name: "dns" port: 5353 protocol: "UDP" } ports { name: "dns" port: 5354 protocol: "TCP" }'
    )
    listeners = plan_listeners(web, [both])
    assert targets(listeners) == [["10.244.0.2:8080"], ["10.244.0.2:5353"], []]
    assert [each.protocol for each in listeners] == ["TCP", "UDP", "TCP"]


def test_named_target_port_may_differ_between_slices():
    """Two versions of a pod give one port name different numbers; each slice tells its own."""
    slices = [
        endpoint_slice('endpoints { addresses: "10.244.0.2" } ports { port: 8080 }'),
        endpoint_slice('endpoints { addresses: "10.244.0.3" } ports { port: 9090 }'),
    ]
    assert targets(plan_listeners(service(PLAIN), slices)) == [["10.244.0.2:8080", "10.244.0.3:9090"]]


READY = 'endpoints { addresses: "10.244.0.2" conditions { ready: true serving: true terminating: false } }'
UNSAID = 'endpoints { addresses: "10.244.0.3" }'
LEAVING = 'endpoints { addresses: "10.244.0.4" conditions { ready: false serving: true terminating: true } }'
SICK = 'endpoints { addresses: "10.244.0.5" conditions { ready: false serving: false terminating: false } }'
GONE = 'endpoints { addresses: "10.244.0.6" conditions { ready: false serving: false terminating: true } }'


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        ([READY, UNSAID, LEAVING, SICK, GONE], ["2", "3"]),
        ([LEAVING, SICK, GONE], ["4"]),
        ([SICK, GONE], []),
        ([], []),
    ],
)
def test_conditions(endpoints, expected):
    text = " ".join([*endpoints, "ports { port: 8080 }"])
    assert targets(plan_listeners(service(PLAIN), [endpoint_slice(text)])) == [
        [f"10.244.0.{number}:8080" for number in expected]
    ]


def test_impossible_port_of_an_endpoint_is_left_out():
    text = 'endpoints { addresses: "10.244.0.2" } ports { port: 70000 } ports { port: 8080 } ports { }'
    assert targets(plan_listeners(service(PLAIN), [endpoint_slice(text)])) == [["10.244.0.2:8080"]]


def test_publish_not_ready_addresses():
    text = " ".join([READY, SICK, "ports { port: 8080 }"])
    web = service(PLAIN + " publishNotReadyAddresses: true")
    assert targets(plan_listeners(web, [endpoint_slice(text)])) == [["10.244.0.2:8080", "10.244.0.5:8080"]]


def test_traffic_policies_keep_to_the_node():
    text = (
        'endpoints { addresses: "10.244.0.2" nodeName: "a" } endpoints { addresses: "10.244.1.2" nodeName: "b" } '
        "ports { port: 8080 }"
    )
    ports = 'type: "NodePort" clusterIP: "10.96.0.1" ports { port: 80 nodePort: 30080 } '
    everywhere, here = ["10.244.0.2:8080", "10.244.1.2:8080"], ["10.244.1.2:8080"]
    for policy, expected in (
        ("", [everywhere, everywhere]),
        ('externalTrafficPolicy: "Local"', [everywhere, here]),
        ('internalTrafficPolicy: "Local"', [here, everywhere]),
    ):
        assert targets(plan_listeners(service(ports + policy), [endpoint_slice(text)], node="b")) == expected


def test_dual_stack_addresses_lead_to_their_own_family():
    web = service('clusterIP: "10.96.0.1" clusterIPs: "10.96.0.1" clusterIPs: "fd00::1" ports { port: 80 }')
    six = endpoint_slice('addressType: "IPv6" endpoints { addresses: "fd01::2" } ports { port: 8080 }')
    names = endpoint_slice('addressType: "FQDN" endpoints { addresses: "example.org" } ports { port: 8080 }')
    assert targets(plan_listeners(web, [ONE, six, names])) == [["10.244.0.2:8080"], ["fd01::2:8080"]]


def test_endpoints_serve_when_there_are_no_slices():
    endpoints = text_format.Parse(
        'subsets { addresses { ip: "10.244.0.2" nodeName: "a" '
        'targetRef { kind: "Pod" namespace: "default" name: "p" } } '
        'notReadyAddresses { ip: "10.244.0.3" } ports { port: 8080 } }',
        Endpoints(),
    )
    (listener,) = plan_listeners(service(PLAIN), [], endpoints)
    assert listener.backends == (Backend("10.244.0.2", 8080, "default/p", "a"),)
    assert targets(plan_listeners(service(PLAIN), [ONE], endpoints)) == [["10.244.0.2:8080"]]
    assert targets(plan_listeners(service(PLAIN + " publishNotReadyAddresses: true"), [], endpoints)) == [
        ["10.244.0.2:8080", "10.244.0.3:8080"]
    ]


def test_affinity_and_policy():
    web = service(PLAIN + ' sessionAffinity: "ClientIP"')
    assert plan_listeners(web, [ONE])[0].affinity_s == 10_800
    web.spec.sessionAffinityConfig.clientIP.timeoutSeconds = 60
    assert plan_listeners(web, [ONE])[0].affinity_s == 60
    web.metadata.annotations["knarr.dev/balance"] = "least-connections"
    assert plan_listeners(web, [ONE])[0].policy is Policy.LEAST_CONNECTIONS
    web.metadata.annotations["knarr.dev/balance"] = "astrology"
    assert plan_listeners(web, [ONE])[0].policy is Policy.ROUND_ROBIN


def test_slice_names_its_service():
    one = endpoint_slice('metadata { namespace: "ns" labels { key: "kubernetes.io/service-name" value: "web" } }')
    assert service_of(one) == "ns/web"
    assert service_of(endpoint_slice('metadata { namespace: "ns" }')) == "ns/"


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(2, 9), max_size=6), max_size=4), st.randoms())
def test_plan_depends_on_the_set_of_endpoints_alone(parts, rng):
    def slices():
        return [
            endpoint_slice(
                " ".join(f'endpoints {{ addresses: "10.244.0.{number}" }}' for number in part) + " ports { port: 8080 }"
            )
            for part in parts
        ]

    plan = plan_listeners(service(PLAIN), slices())
    for part in parts:
        rng.shuffle(part)
    rng.shuffle(parts)
    assert plan_listeners(service(PLAIN), slices()) == plan
    assert targets(plan) == [[f"10.244.0.{number}:8080" for number in sorted({n for part in parts for n in part})]]
