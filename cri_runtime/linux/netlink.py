"""Netlink, as little of it as a pod's network needs: messages out in one batch, answers back, no framework between.

A request is a function's result (bytes); a :class:`Netlink` socket sends any number of them in one system call. The
kernel works netlink requests off inside ``sendmsg``, so when it returns every answer is already queued and nothing
waits. That is what makes attaching a pod take well under a millisecond of our time; pyroute2, which caches, threads
and converts, takes several.

Sources: netlink(7), rtnetlink(7), veth(4), Linux uapi headers linux/netlink.h, linux/rtnetlink.h, linux/if_link.h.
"""

import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Self

from cri_runtime.linux.constants import CLONE_NEWNET
from cri_runtime.linux.namespace import setns

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_F_NESTED = 0x8000

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_NEWROUTE = 20, 24

IFF_UP = 0x1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO, IFLA_NET_NS_FD = 1, 3, 4, 10, 18, 28
IFLA_GROUP = 27
IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES = 31, 32
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA, IFLA_BRPORT_MODE = 4, 5, 4
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
RTA_GATEWAY = 5
RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST = 254, 4, 0, 1

LOOPBACK_INDEX = 1
"""The kernel gives the loopback device of every network namespace this index."""

RECEIVE_BYTES = 1 << 18
ANSWER_TIMEOUT = struct.pack("@qq", 10, 0)
"""A struct timeval. Answers are queued before ``sendmsg`` returns; this only keeps a kernel fault from hanging us."""

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port


class NetlinkError(OSError):
    """The kernel refused a request; ``errno`` says why and ``filename`` which request."""


@dataclass(frozen=True)
class Message:
    """One answer: its type and what follows the netlink header."""

    kind: int
    payload: bytes


@dataclass(frozen=True)
class Request:
    """One message to the kernel.

    ``what`` names it in errors; errnos in ``tolerated`` count as success. The frame of a batch is not ``acknowledged``.
    """

    kind: int
    flags: int
    body: bytes
    what: str
    tolerated: frozenset[int] = frozenset()
    acknowledged: bool = True


# --- encoding --------------------------------------------------------------------------------------------------------


def attr(kind: int, value: bytes | str | int) -> bytes:
    """One attribute: ``length u16 | kind u16 | value``, padded to 4. Text gets its NUL, numbers are native u32."""
    if isinstance(value, str):
        value = value.encode() + b"\0"
    elif isinstance(value, int):
        value = struct.pack("=I", value)
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attr(kind | NLA_F_NESTED, b"".join(attributes))


def parse_attrs(buf: bytes) -> dict[int, bytes]:
    """Attributes by kind, flags removed; of a repeated kind, the last."""
    found = {}
    while len(buf) >= 4:
        length, kind = struct.unpack_from("=HH", buf)
        if length < 4:
            break
        found[kind & 0x3FFF] = buf[4:length]
        buf = buf[(length + 3) & ~3 :]
    return found


def text(value: bytes) -> str:
    """The text of an attribute, without its NUL."""
    return value.rstrip(b"\0").decode()


# --- requests about links, addresses and routes ----------------------------------------------------------------------


def _ifinfomsg(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, change)


def add_bridge(name: str, mtu: int, mac: bytes) -> Request:
    """Create bridge ``name`` and bring it up. EEXIST when there is such a device.

    A bridge that was given no ``mac`` takes the lowest of its ports', so each pod could change it under the others.
    """
    body = _ifinfomsg(0, IFF_UP, IFF_UP) + attr(IFLA_IFNAME, name) + attr(IFLA_MTU, mtu) + attr(IFLA_ADDRESS, mac)
    body += nested(IFLA_LINKINFO, attr(IFLA_INFO_KIND, "bridge"))
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create bridge {name}")


def add_veth(
    name: str, bridge_index: int, mtu: int, peer_name: str, peer_mac: bytes, peer_netns: int | None = None
) -> Request:
    """Create a veth pair: ``name`` here, up, a port of the bridge; the peer in the namespace of the descriptor
    ``peer_netns``, down (the kernel answers ENOTCONN to a peer that is to be born up).

    One queue each way: the default is one per possible CPU, and costs memory per pod.
    """
    queues = attr(IFLA_NUM_TX_QUEUES, 1) + attr(IFLA_NUM_RX_QUEUES, 1)
    peer = _ifinfomsg() + attr(IFLA_IFNAME, peer_name) + attr(IFLA_MTU, mtu)
    peer += attr(IFLA_ADDRESS, peer_mac) + queues
    if peer_netns is not None:
        peer += attr(IFLA_NET_NS_FD, peer_netns)
    body = _ifinfomsg(0, IFF_UP, IFF_UP) + attr(IFLA_IFNAME, name) + attr(IFLA_MTU, mtu) + queues
    body += attr(IFLA_MASTER, bridge_index)
    body += nested(IFLA_LINKINFO, attr(IFLA_INFO_KIND, "veth"), nested(IFLA_INFO_DATA, nested(VETH_INFO_PEER, peer)))
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create veth pair {name}")


def set_link_up(index: int) -> Request:
    """Bring a device up."""
    return Request(RTM_NEWLINK, 0, _ifinfomsg(index, IFF_UP, IFF_UP), f"bring up device {index}")


def delete_link(name: str, tolerated: frozenset[int] = frozenset()) -> Request:
    """Delete a device by name; deleting one end of a veth pair deletes both."""
    return Request(RTM_DELLINK, 0, _ifinfomsg() + attr(IFLA_IFNAME, name), f"delete device {name}", tolerated)


def set_hairpin(name: str) -> Request:
    """Let a bridge port send a frame back where it came from."""
    port = nested(IFLA_INFO_SLAVE_DATA, attr(IFLA_BRPORT_MODE, b"\x01"))
    body = _ifinfomsg() + attr(IFLA_IFNAME, name)
    body += nested(IFLA_LINKINFO, attr(IFLA_INFO_SLAVE_KIND, "bridge"), port)
    return Request(RTM_NEWLINK, 0, body, f"set hairpin mode of {name}")


def bury_link(name: str, group: int, tolerated: frozenset[int] = frozenset()) -> Request:
    """Cut a device off: down, out of its bridge, into ``group``, for :func:`delete_group` to delete.

    Takes microseconds. Deleting takes the kernel tens of milliseconds (it waits for every CPU), however many go.
    """
    body = _ifinfomsg(0, 0, IFF_UP) + attr(IFLA_IFNAME, name) + attr(IFLA_MASTER, 0) + attr(IFLA_GROUP, group)
    return Request(RTM_SETLINK, 0, body, f"cut off device {name}", tolerated)


def delete_group(group: int, tolerated: frozenset[int] = frozenset()) -> Request:
    """Delete all devices of a group at once. ENODEV when there are none."""
    return Request(
        RTM_DELLINK, 0, _ifinfomsg() + attr(IFLA_GROUP, group), f"delete devices of group {group}", tolerated
    )


def get_link(name: str) -> Request:
    """Ask for one device; the answer is an RTM_NEWLINK for :func:`parse_link`."""
    return Request(RTM_GETLINK, 0, _ifinfomsg() + attr(IFLA_IFNAME, name), f"find device {name}")


def dump_ports(bridge_index: int) -> Request:
    """Ask for all devices that are ports of a bridge."""
    body = _ifinfomsg() + attr(IFLA_MASTER, bridge_index)
    return Request(RTM_GETLINK, NLM_F_DUMP, body, f"list the ports of bridge {bridge_index}")


def add_address(index: int, address: IPv4Interface, tolerated: frozenset[int] = frozenset()) -> Request:
    """Give a device an address, and with it the route to the address's network."""
    body = struct.pack("=BBBBi", socket.AF_INET, address.network.prefixlen, 0, RT_SCOPE_UNIVERSE, index)
    body += attr(IFA_LOCAL, address.packed) + attr(IFA_ADDRESS, address.packed)
    body += attr(IFA_BROADCAST, address.network.broadcast_address.packed)
    return Request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body, f"add address {address}", tolerated)


def add_route(gateway: IPv4Address, destination: IPv4Network | None = None) -> Request:
    """Add a route through ``gateway``; to everywhere when there is no ``destination``."""
    length = destination.prefixlen if destination else 0
    body = struct.pack(
        "=BBBBBBBBI", socket.AF_INET, length, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0
    )
    if destination:
        body += attr(1, destination.network_address.packed)
    body += attr(RTA_GATEWAY, gateway.packed)
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body, f"add route via {gateway}")


@dataclass(frozen=True)
class Link:
    """A network device as the kernel describes it."""

    index: int
    name: str
    mac: str
    mtu: int
    kind: str
    master: int  # the index of the bridge it is a port of; 0 = none


def parse_link(message: Message) -> Link:
    """Decode an RTM_NEWLINK."""
    index = struct.unpack_from("=i", message.payload, 4)[0]
    attrs = parse_attrs(message.payload[16:])
    info = parse_attrs(attrs.get(IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=text(attrs[IFLA_IFNAME]),
        mac=attrs.get(IFLA_ADDRESS, b"").hex(":"),
        mtu=int.from_bytes(attrs.get(IFLA_MTU, b""), sys.byteorder),
        kind=text(info.get(IFLA_INFO_KIND, b"")),
        master=int.from_bytes(attrs.get(IFLA_MASTER, b""), sys.byteorder),
    )


# --- the socket ------------------------------------------------------------------------------------------------------


class Netlink:
    """A netlink socket of the network namespace it was opened in. Not for use by two threads at once.

    Use as a context manager or call :meth:`close`.
    """

    def __init__(self, family: int = NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, ANSWER_TIMEOUT)
        self._socket.bind((0, 0))
        self._sequence = 0

    @classmethod
    def inside(cls, netns: int, family: int = NETLINK_ROUTE) -> Self:
        """A socket of another network namespace, given as an open descriptor.

        Only the calling thread steps over, and back before this returns. Raises OSError naming setns.
        """
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(netns, CLONE_NEWNET)
            try:
                return cls(family)
            finally:
                setns(home, CLONE_NEWNET)
        finally:
            os.close(home)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def request(self, *requests: Request) -> list[Message]:
        """Have the kernel carry out ``requests`` in order and return what they answered.

        All are attempted, each by itself. Raises NetlinkError for the first that failed.
        """
        numbered = {self._sequence + n: request for n, request in enumerate(requests, 1)}
        self._sequence += len(requests)
        self._socket.send(b"".join(encode(request, sequence) for sequence, request in numbered.items()))
        return self._collect(numbered)

    def _collect(self, requests: dict[int, Request]) -> list[Message]:
        """Read until each request has had its ACK, its error, or the end of its dump."""
        answers: list[Message] = []
        pending = {sequence for sequence, request in requests.items() if request.acknowledged}
        failure: NetlinkError | None = None
        while pending:
            for sequence, message in split(self._socket.recv(RECEIVE_BYTES)):
                request = requests.get(sequence)
                if request is None:
                    continue  # the rest of something that an earlier error made us give up on
                if message.kind not in (NLMSG_ERROR, NLMSG_DONE):
                    answers.append(message)
                    continue
                failure = failure or error_of(message, request)
                if failure and not request.acknowledged:
                    raise failure  # the frame of a batch was refused: nothing inside it is answered
                pending.discard(sequence)
        if failure:
            raise failure
        return answers


def encode(request: Request, sequence: int) -> bytes:
    """A request as it goes on the wire; everything is acknowledged, a dump by its end."""
    is_dump = request.flags & NLM_F_DUMP == NLM_F_DUMP
    flags = request.flags | NLM_F_REQUEST | (NLM_F_ACK if request.acknowledged and not is_dump else 0)
    header = HEADER.pack(HEADER.size + len(request.body), request.kind, flags, sequence, 0)
    return header + request.body + bytes(-len(request.body) % 4)


def split(buf: bytes) -> Iterator[tuple[int, Message]]:
    """The (sequence, message) pairs of one datagram."""
    while len(buf) >= HEADER.size:
        length, kind, _, sequence, _ = HEADER.unpack_from(buf)
        yield sequence, Message(kind, buf[HEADER.size : length])
        buf = buf[(length + 3) & ~3 :]


def error_of(message: Message, request: Request) -> NetlinkError | None:
    """The refusal that an NLMSG_ERROR or NLMSG_DONE carries, if it is one that the request does not tolerate."""
    code = -int.from_bytes(message.payload[:4], sys.byteorder, signed=True)
    if code <= 0 or code in request.tolerated:
        return None
    return NetlinkError(code, os.strerror(code), request.what)
