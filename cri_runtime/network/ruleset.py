"""The bridge's nftables table: what it does to packets, as one replaceable whole.

In nft's own language, for bridge ``B`` with pod CIDR ``P`` and the cluster's other ranges ``C``, ``S``...::

    table inet knarr_B {
        map hostports    { type inet_proto . inet_service : ipv4_addr . inet_service }
        map hostports_at { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }

        chain guard      { type filter hook prerouting priority raw
                           iifname B ip daddr 127.0.0.0/8 drop }          # route_localnet must not open our loopback
        chain prerouting { type nat hook prerouting priority dstnat;  jump hostports }
        chain output     { type nat hook output priority dstnat;      jump hostports }
        chain hostports  { ip daddr S return                              # service addresses are local too (AnyIP)
                           fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @hostports_at
                           fib daddr type local dnat ip to meta l4proto . th dport map @hostports }
        chain postrouting { type nat hook postrouting priority srcnat
                           ct status dnat ip saddr P ip daddr P masquerade   # a pod reaching a pod by host port
                           ip saddr 127.0.0.0/8 oifname B masquerade         # this machine, by localhost
                           ip saddr P ip daddr C return                      # pods see each other's own addresses
                           ip saddr P ip daddr != P oifname != B masquerade }
    }
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network

from cri_runtime.linux.netlink import Request
from cri_runtime.network import nft

HOSTPORTS, HOSTPORTS_AT = "hostports", "hostports_at"
LOOPBACK = IPv4Network("127.0.0.0/8")
PRIORITY_RAW, PRIORITY_DSTNAT, PRIORITY_SRCNAT = -300, -100, 100


def table_of(bridge: str) -> str:
    """The table's name: one per bridge, so that several networks live on one machine."""
    return f"knarr_{bridge}"


def replace_table(
    bridge: str, pods: IPv4Network, cluster: Sequence[IPv4Network], entries: Iterable[Request]
) -> list[Request]:
    """The transaction that makes the table exactly this, whatever it was before, with ``entries`` in its maps.

    ``cluster`` are the ranges of other nodes' pods and of services: reached without masquerade, never host ports.
    """
    table = table_of(bridge)
    fresh = [nft.add_table(table), nft.delete_table(table), nft.add_table(table)]
    return nft.transaction(
        [
            *fresh,
            *_maps(table),
            *_guard(table, bridge),
            *_hostports(table, cluster),
            *_postrouting(table, bridge, pods, cluster),
            *entries,
        ]
    )


def _maps(table: str) -> list[Request]:
    target = (nft.TYPE_IPV4, nft.TYPE_PORT)
    return [
        nft.add_map(table, HOSTPORTS, 1, (nft.TYPE_PROTO, nft.TYPE_PORT), target),
        nft.add_map(table, HOSTPORTS_AT, 2, (nft.TYPE_IPV4, nft.TYPE_PROTO, nft.TYPE_PORT), target),
    ]


def _guard(table: str, bridge: str) -> list[Request]:
    return [
        nft.add_base_chain(table, "guard", "filter", nft.PRE_ROUTING, PRIORITY_RAW),
        nft.add_rule(
            table,
            "guard",
            *nft.match_device("in", bridge),
            *nft.match_ipv4(),
            *_network("destination", LOOPBACK),
            nft.verdict(nft.DROP),
        ),
    ]


def _hostports(table: str, cluster: Sequence[IPv4Network]) -> list[Request]:
    local = [*nft.match_local_destination(), *nft.match_ipv4()]
    anywhere = [nft.load_protocol(nft.R0), nft.load_port(nft.R1), nft.lookup(HOSTPORTS, 1, nft.R0, nft.R0)]
    one_address = [
        nft.load_ipv4("destination", nft.R0),
        nft.load_protocol(nft.R1),
        nft.load_port(nft.R2),
        nft.lookup(HOSTPORTS_AT, 2, nft.R0, nft.R0),
    ]
    translate = nft.dnat(nft.R0, nft.R1)
    enter = nft.verdict(nft.JUMP, "hostports")
    return [
        nft.add_chain(table, "hostports"),
        *(
            nft.add_rule(table, "hostports", *nft.match_ipv4(), *_network("destination", net), nft.verdict(nft.RETURN))
            for net in cluster
        ),
        nft.add_rule(table, "hostports", *local, *one_address, translate),
        nft.add_rule(table, "hostports", *local, *anywhere, translate),
        nft.add_base_chain(table, "prerouting", "nat", nft.PRE_ROUTING, PRIORITY_DSTNAT),
        nft.add_rule(table, "prerouting", enter),
        nft.add_base_chain(table, "output", "nat", nft.OUTPUT, PRIORITY_DSTNAT),
        nft.add_rule(table, "output", enter),
    ]


def _postrouting(table: str, bridge: str, pods: IPv4Network, cluster: Sequence[IPv4Network]) -> list[Request]:
    def rule(*expressions: bytes) -> Request:
        return nft.add_rule(table, "postrouting", *nft.match_ipv4(), *expressions)

    from_pods, to_pods = _network("source", pods), _network("destination", pods)
    return [
        nft.add_base_chain(table, "postrouting", "nat", nft.POST_ROUTING, PRIORITY_SRCNAT),
        rule(*nft.match_dnatted(), *from_pods, *to_pods, nft.masquerade()),
        rule(*_network("source", LOOPBACK), *nft.match_device("out", bridge), nft.masquerade()),
        *(rule(*from_pods, *_network("destination", net), nft.verdict(nft.RETURN)) for net in cluster),
        rule(
            *from_pods,
            *_network("destination", pods, equal=False),
            *nft.match_device("out", bridge, equal=False),
            nft.masquerade(),
        ),
    ]


def _network(end: str, network: IPv4Network, equal: bool = True) -> list[bytes]:
    return nft.match_network(end, network.network_address.packed, network.netmask.packed, equal)
