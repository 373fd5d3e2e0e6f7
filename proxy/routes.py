"""AnyIP routes: they make whole networks of service addresses local to the node, without an address on any interface.

``ip route add local 10.96.0.0/16 dev lo`` in words: a packet to any address of the network is delivered to this host,
where a listener takes it or the kernel refuses it with RST. The routes carry a protocol number of ours, so that what we
remove is what we (or a predecessor that was killed) made, and nobody else's.

Source: rtnetlink(7), linux/rtnetlink.h; plain netlink messages, as one kind of message needs no library.
"""

import errno
import logging
import os
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

log = logging.getLogger(__name__)

Network = IPv4Network | IPv6Network

RTPROT_KNARR = 75
"""``rtm_protocol`` of our routes: not registered, not used by the routing daemons of rt_protos."""

RTM_NEWROUTE, RTM_DELROUTE = 24, 25
NLMSG_ERROR = 2
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x4, 0x200, 0x400
RT_TABLE_LOCAL, RT_SCOPE_HOST, RTN_LOCAL = 255, 254, 2
RTA_DST, RTA_OIF = 1, 4


class RouteError(OSError):
    """A route could not be made; the message names it and says what to do."""


class AnyIPRoutes:
    """The networks that are local because of us. A context manager: leaving it removes them."""

    def __init__(self, networks: Iterable[str]) -> None:
        """``networks``: made at once on entering. Raises ValueError for one that is not a network."""
        self._networks = {ip_network(network) for network in networks}
        self._made: set[Network] = set()

    def __enter__(self) -> "AnyIPRoutes":
        """Make the routes; those that exist already are adopted. Raises RouteError."""
        try:
            for network in sorted(self._networks, key=str):
                self._make(network)
        except RouteError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what is ours. A route that somebody else took away is no error."""
        for network in list(self._made):
            self._remove(network)

    def cover(self, address: str, wanted: bool) -> None:
        """Make one service address local, or no longer: those outside of our networks (an external IP, the address of
        another load balancer). What cannot be made is logged: it is one service's trouble."""
        network = ip_network(address)
        if not wanted and network in self._made:
            self._remove(network)
        elif wanted and self._needs_route(address):
            try:
                self._make(network)
            except RouteError as err:
                log.warning("service address is not reachable", extra={"cause": str(err)})

    def _needs_route(self, address: str) -> bool:
        ip = ip_address(address)
        return not (ip.is_unspecified or ip.is_loopback or any(ip in network for network in self._networks))

    def _make(self, network: Network) -> None:
        code = _request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, network)
        if code not in (0, errno.EEXIST):
            hint = {
                errno.EPERM: "the proxy needs root (CAP_NET_ADMIN)",
                errno.ENETDOWN: "set the interface lo up",
            }.get(code, os.strerror(code))
            raise RouteError(code, f"cannot make {network} local (ip route add local {network} dev lo): {hint}")
        self._made.add(network)

    def _remove(self, network: Network) -> None:
        self._made.discard(network)
        _request(RTM_DELROUTE, 0, network)


def _request(kind: int, flags: int, network: Network) -> int:
    """Send one route message; the errno of the kernel's answer, 0 for success."""
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    body = struct.pack(
        "=BBBBBBBBI",
        *(family, network.prefixlen, 0, 0, RT_TABLE_LOCAL, RTPROT_KNARR, RT_SCOPE_HOST, RTN_LOCAL, 0),
    )
    body += _attribute(RTA_DST, network.network_address.packed)
    body += _attribute(RTA_OIF, struct.pack("=I", socket.if_nametoindex("lo")))
    header = struct.pack("=IHHII", 16 + len(body), kind, flags | NLM_F_REQUEST | NLM_F_ACK, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.bind((0, 0))
        netlink.send(header + body)
        answer = netlink.recv(4096)
    _, answered, _, _, _, code = struct.unpack_from("=IHHIIi", answer)
    return -code if answered == NLMSG_ERROR else errno.EPROTO


def _attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload
