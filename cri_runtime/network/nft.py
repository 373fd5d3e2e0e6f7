"""nftables over netlink: the few messages and expressions that a bridge's table needs, as pure encoders.

A transaction (:func:`transaction`) is applied by the kernel whole or not at all. Registers are the 32-bit ones,
``R0`` to ``R15``; a concatenated key is values in consecutive registers, each padded to 4 bytes.

Source: Linux uapi headers linux/netfilter/nf_tables.h and nfnetlink.h. Numbers go in network order, except values
that the kernel compares in its own (ct status, verdicts aside).
"""

import socket
import struct
from collections.abc import Iterable

from cri_runtime.linux.netlink import NLM_F_CREATE, NLM_F_EXCL, Request, attr, nested

SUBSYSTEM = 10
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NEWTABLE, DELTABLE, NEWCHAIN, NEWRULE, NEWSET, NEWSETELEM, DELSETELEM = 0, 2, 3, 6, 9, 12, 14
NFPROTO_INET, NFPROTO_IPV4 = 1, 2

R0, R1, R2 = 8, 9, 10
TYPE_IPV4, TYPE_PROTO, TYPE_PORT = 7, 12, 13
"""nft's names for what is in a key (``ipv4_addr``, ``inet_proto``, ``inet_service``): only listings use them."""

DROP, ACCEPT, JUMP, RETURN = 0, 1, -3, -5
PRE_ROUTING, OUTPUT, POST_ROUTING = 0, 3, 4
CT_STATUS_DNAT = 1 << 5


def be32(number: int) -> bytes:
    """A signed or unsigned number in network order."""
    return struct.pack("!I", number & 0xFFFFFFFF)


def type_of(*parts: int) -> int:
    """The type number of a concatenation: six bits each."""
    number = 0
    for part in parts:
        number = number << 6 | part
    return number


# --- messages --------------------------------------------------------------------------------------------------------


def _request(message: int, flags: int, body: bytes, what: str, tolerated: frozenset[int] = frozenset()) -> Request:
    header = struct.pack("=BBH", NFPROTO_INET, 0, 0)
    return Request(SUBSYSTEM << 8 | message, flags, header + body, what, tolerated)


def transaction(requests: Iterable[Request]) -> list[Request]:
    """``requests`` as one atomic batch, for one :meth:`Netlink.request`."""
    frame = struct.pack("!BBH", 0, 0, SUBSYSTEM)
    begin = Request(BATCH_BEGIN, 0, frame, "begin an nftables transaction", acknowledged=False)
    end = Request(BATCH_END, 0, frame, "end an nftables transaction", acknowledged=False)
    return [begin, *requests, end]


def add_table(name: str) -> Request:
    """Make an ``inet`` table, or keep it."""
    return _request(NEWTABLE, NLM_F_CREATE, attr(1, name), f"add nftables table {name}")


def delete_table(name: str, tolerated: frozenset[int] = frozenset()) -> Request:
    """Delete a table with all it holds."""
    return _request(DELTABLE, 0, attr(1, name), f"delete nftables table {name}", tolerated)


def add_base_chain(table: str, name: str, kind: str, hook: int, priority: int) -> Request:
    """Make a chain that the kernel enters at ``hook``; ``kind`` is ``nat`` or ``filter``."""
    where = nested(4, attr(1, be32(hook)), attr(2, be32(priority)))
    body = attr(1, table) + attr(3, name) + where + attr(7, kind)
    return _request(NEWCHAIN, NLM_F_CREATE, body, f"add nftables chain {name}")


def add_chain(table: str, name: str) -> Request:
    """Make a chain that rules jump to."""
    return _request(NEWCHAIN, NLM_F_CREATE, attr(1, table) + attr(3, name), f"add nftables chain {name}")


def add_rule(table: str, chain: str, *expressions: bytes) -> Request:
    """Append a rule."""
    listed = nested(4, *(attr(1 | 0x8000, expression) for expression in expressions))
    return _request(NEWRULE, NLM_F_CREATE | 0x800, attr(1, table) + attr(2, chain) + listed, f"add a rule to {chain}")


def add_map(table: str, name: str, number: int, key: tuple[int, ...], data: tuple[int, ...]) -> Request:
    """Make a map from concatenation to concatenation, as tuples of ``TYPE_``. ``number`` is its id in the batch."""
    is_map = 0x8
    body = attr(1, table) + attr(2, name) + attr(3, be32(is_map))
    body += attr(4, be32(type_of(*key))) + attr(5, be32(4 * len(key)))
    body += attr(6, be32(type_of(*data))) + attr(7, be32(4 * len(data))) + attr(10, be32(number))
    return _request(NEWSET, NLM_F_CREATE, body, f"add nftables map {name}")


def add_elements(table: str, name: str, elements: dict[bytes, bytes], what: str) -> Request:
    """Add entries to a map. EEXIST when a key is taken: the whole transaction is then void."""
    return _request(NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL, _elements(table, name, elements), what)


def delete_elements(table: str, name: str, keys: Iterable[bytes]) -> Request:
    """Delete entries of a map. ENOENT when one is not there."""
    return _request(DELSETELEM, 0, _elements(table, name, dict.fromkeys(keys, b"")), f"delete entries of {name}")


def _elements(table: str, name: str, elements: dict[bytes, bytes]) -> bytes:
    listed = [
        nested(1, nested(1, attr(1, key)), *([nested(2, attr(1, data))] if data else []))
        for key, data in elements.items()
    ]
    return attr(1, table) + attr(2, name) + nested(3, *listed)


# --- expressions: each loads a register, tests one, or acts -----------------------------------------------------------


def _expression(name: str, *attributes: bytes) -> bytes:
    return attr(1, name) + nested(2, *attributes)


def _meta(key: int, register: int) -> bytes:
    return _expression("meta", attr(1, be32(register)), attr(2, be32(key)))


def _payload(base: int, offset: int, length: int, register: int) -> bytes:
    return _expression(
        "payload", attr(1, be32(register)), attr(2, be32(base)), attr(3, be32(offset)), attr(4, be32(length))
    )


def _compare(register: int, value: bytes, equal: bool = True) -> bytes:
    return _expression("cmp", attr(1, be32(register)), attr(2, be32(0 if equal else 1)), nested(3, attr(1, value)))


def _mask(register: int, mask: bytes) -> bytes:
    none = nested(5, attr(1, bytes(len(mask))))
    sizes = attr(1, be32(register)) + attr(2, be32(register)) + attr(3, be32(len(mask)))
    return _expression("bitwise", sizes, nested(4, attr(1, mask)), none)


def match_ipv4() -> list[bytes]:
    """``meta nfproto ipv4``"""
    return [_meta(15, R0), _compare(R0, bytes([NFPROTO_IPV4]))]


def match_device(direction: str, name: str, equal: bool = True) -> list[bytes]:
    """``iifname NAME`` (direction "in") or ``oifname NAME`` ("out"), or its opposite."""
    padded = name.encode().ljust(16, b"\0")
    return [_meta(6 if direction == "in" else 7, R0), _compare(R0, padded, equal)]


def match_network(end: str, address: bytes, mask: bytes, equal: bool = True) -> list[bytes]:
    """``ip saddr NET`` (end "source") or ``ip daddr NET`` ("destination"), or its opposite."""
    return [load_ipv4(end, R0), _mask(R0, mask), _compare(R0, address, equal)]


def match_local_destination() -> list[bytes]:
    """``fib daddr type local``: an address of this machine."""
    by_type, of_destination = 3, 1 << 1
    load = _expression("fib", attr(1, be32(R0)), attr(2, be32(by_type)), attr(3, be32(of_destination)))
    return [load, _compare(R0, struct.pack("=I", 2))]


def match_dnatted() -> list[bytes]:
    """``ct status dnat``: the connection's destination was translated."""
    load = _expression("ct", attr(1, be32(R0)), attr(2, be32(2)))
    return [load, _mask(R0, struct.pack("=I", CT_STATUS_DNAT)), _compare(R0, bytes(4), equal=False)]


def load_ipv4(end: str, register: int) -> bytes:
    """The packet's source or destination address into a register."""
    return _payload(1, 12 if end == "source" else 16, 4, register)


def load_protocol(register: int) -> bytes:
    """The transport protocol's number into a register."""
    return _meta(16, register)


def load_port(register: int) -> bytes:
    """The destination port, of TCP, UDP and SCTP alike, into a register."""
    return _payload(2, 2, 2, register)


def lookup(name: str, number: int, register: int, into: int) -> bytes:
    """Look the key at ``register`` up in a map; what it maps to lands at ``into``; no entry ends the rule."""
    return _expression("lookup", attr(1, name), attr(2, be32(register)), attr(3, be32(into)), attr(4, be32(number)))


def dnat(address: int, port: int) -> bytes:
    """Send the connection to the address and port in these registers."""
    destination = 1
    return _expression(
        "nat", attr(1, be32(destination)), attr(2, be32(NFPROTO_IPV4)), attr(3, be32(address)), attr(5, be32(port))
    )


def masquerade() -> bytes:
    """Give the connection the outgoing device's address as its source."""
    return _expression("masq")


def verdict(code: int, chain: str = "") -> bytes:
    """End the rule: DROP, ACCEPT, RETURN, or JUMP to ``chain``."""
    target = attr(2, chain) if chain else b""
    return _expression("immediate", attr(1, be32(0)), nested(2, nested(2, attr(1, be32(code)), target)))


def ipv4(address: str) -> bytes:
    """An address as it lies in a register."""
    return socket.inet_aton(address)


def port(number: int) -> bytes:
    """A port as it lies in a register: network order, padded."""
    return struct.pack("!HH", number, 0)


def protocol(number: int) -> bytes:
    """A protocol number as it lies in a register."""
    return bytes([number, 0, 0, 0])
