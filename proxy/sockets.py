"""Facts and small rules about sockets that both data paths use."""

import resource
import socket
from ipaddress import IPv4Network, IPv6Network, ip_address

# linux/in.h; the socket module of Python 3.11 has no names for them.
IP_PKTINFO = 8
IP_FREEBIND = 15

KEEPALIVE_IDLE_S = 60
"""Silence after which the kernel probes a peer, seconds: a pod that was taken away never says goodbye."""

Networks = tuple[IPv4Network | IPv6Network, ...]


def admits(sources: Networks, client: str) -> bool:
    """Whether the address ``client`` may use a listener that is open to ``sources``: to all when there are none."""
    return not sources or any(ip_address(client) in network for network in sources)


def family_of(address: str) -> socket.AddressFamily:
    """AF_INET6 for an address with a colon in it."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def keep_alive(sock: socket.socket) -> None:
    """Have the kernel notice peers that vanished."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)


def descriptor_limit() -> int:
    """Raise the soft limit on open descriptors to the hard one, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20
