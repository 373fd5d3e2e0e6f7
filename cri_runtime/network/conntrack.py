"""Forgetting connections: what the kernel remembers of UDP outlives the rules that it was decided by.

A TCP client that finds nobody starts anew, with a new port. A UDP client goes on with the old one: while packets flow,
its connection keeps leading to the pod that is gone, or, if it began before the pod came, past the pod. So when UDP
host ports come or go, the connections that they concern are deleted.

Source: Linux uapi header linux/netfilter/nfnetlink_conntrack.h; the filter's flags are libnetfilter_conntrack's
(kernel 5.8 and later filter a dump by them).
"""

import errno
import socket
import struct
from ipaddress import IPv4Address

from cri_runtime.linux.netlink import NLA_F_NESTED, NLM_F_DUMP, Netlink, Request, attr, nested, parse_attrs

SUBSYSTEM = 1 << 8
GET, DELETE = 1, 2
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ZONE, CTA_FILTER = 1, 2, 18, 25
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_V4_SRC = 1
CTA_PROTO_NUM, CTA_PROTO_DST_PORT = 1, 3
BY_IP_SRC, BY_PROTOCOL, BY_PORT_DST = 1 << 0, 1 << 3, 1 << 5
UDP = 17


def forget_port(kernel: Netlink, port: int) -> int:
    """Delete the UDP connections to ``port``, wherever they lead; returns how many. Raises NetlinkError."""
    proto = nested(
        CTA_TUPLE_PROTO, attr(CTA_PROTO_NUM, bytes([UDP])), attr(CTA_PROTO_DST_PORT, struct.pack("!H", port))
    )
    return _forget(kernel, nested(CTA_TUPLE_ORIG, proto), BY_PROTOCOL | BY_PORT_DST, 0)


def forget_pod(kernel: Netlink, address: IPv4Address) -> int:
    """Delete the UDP connections that a pod answers; returns how many. Raises NetlinkError."""
    ip = nested(CTA_TUPLE_IP, attr(CTA_IP_V4_SRC, address.packed))
    proto = nested(CTA_TUPLE_PROTO, attr(CTA_PROTO_NUM, bytes([UDP])))
    return _forget(kernel, nested(CTA_TUPLE_REPLY, ip, proto), 0, BY_IP_SRC | BY_PROTOCOL)


def _forget(kernel: Netlink, pattern: bytes, original_by: int, reply_by: int) -> int:
    by = nested(CTA_FILTER, attr(1, original_by), attr(2, reply_by))
    found = kernel.request(_request(GET, NLM_F_DUMP, pattern + by, "list UDP connections"))
    attributes = [parse_attrs(message.payload[4:]) for message in found]
    gone = frozenset({errno.ENOENT})  # it ended meanwhile
    deletions = [_request(DELETE, 0, _identity(one), "delete a UDP connection", gone) for one in attributes]
    if deletions:
        kernel.request(*deletions)
    return len(deletions)


def _identity(connection: dict[int, bytes]) -> bytes:
    zone = attr(CTA_ZONE, connection[CTA_ZONE]) if CTA_ZONE in connection else b""
    return attr(CTA_TUPLE_ORIG | NLA_F_NESTED, connection[CTA_TUPLE_ORIG]) + zone


def _request(message: int, flags: int, body: bytes, what: str, tolerated: frozenset[int] = frozenset()) -> Request:
    header = struct.pack("=BBH", socket.AF_INET, 0, 0)
    return Request(SUBSYSTEM | message, flags, header + body, what, tolerated)
