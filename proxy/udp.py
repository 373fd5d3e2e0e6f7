"""The UDP data path: datagrams of one client to one backend, for as long as they keep coming.

UDP has no connections, so we make *flows*: a client's address and port, a backend, and a socket connected to it, over
which answers find their way back. A flow ends when it was silent for ``IDLE_S``, when its backend says that nobody
listens (ICMP, seen as ECONNREFUSED), and, unlike a TCP connection, as soon as its backend is removed: the client would
never notice that nobody answers, and the next datagram finds a living backend. (Kernel NAT gets this wrong until its
conntrack entries are flushed.)
"""

import select
import socket
from collections import OrderedDict
from typing import Any

from proxy.balancer import Balancer, Slot
from proxy.reactor import Timer
from proxy.sockets import IP_FREEBIND, IP_PKTINFO, Networks, admits, family_of
from proxy.tcp import DataPath

IDLE_S = 120.0
"""Silence after which a flow is forgotten, seconds: conntrack's time for a stream of datagrams."""

TURN_DATAGRAMS = 64
"""Datagrams one socket may bring before the others get their turn; level-triggered, so the rest is announced again."""

PKTINFO_BYTES = socket.CMSG_SPACE(12)


class DatagramListener:
    """An open UDP service address."""

    def __init__(self, path: DataPath, balancer: Balancer, sock: socket.socket, sources: Networks = ()) -> None:
        """``sock`` is bound; the listener owns it. ``sources``: who is let in, everybody when empty."""
        self.path = path
        self.balancer = balancer
        self.sources = sources
        self.accepted = 0
        self._sock = sock
        self._flows: OrderedDict[Any, Flow] = OrderedDict()  # by client and the address it asked; oldest heard first
        self._sweeper: Timer | None = None
        self._wildcard = sock.getsockname()[0] == "0.0.0.0"
        path.reactor.add(sock.fileno(), select.EPOLLIN, self.on_events)

    def on_events(self, _events: int) -> None:
        """Carry the datagrams of clients."""
        for _ in range(TURN_DATAGRAMS):
            try:
                size, control, _, client = self._sock.recvmsg_into(
                    [self.path.buffer], PKTINFO_BYTES if self._wildcard else 0
                )
            except OSError:
                return  # dry; or an error of an earlier answer, which concerns nobody here
            local = control[0][2] if control else b""  # on 0.0.0.0: the address that was asked, and so must answer
            self._carry(client, local, self.path.view[:size])

    def _carry(self, client: Any, local: bytes, datagram: memoryview) -> None:
        flow = self._flows.get((client, local))
        tried: tuple[Slot, ...] = ()
        while True:
            flow = flow or self._open(client, local, tried)
            if flow is None or flow.send(datagram):
                return
            tried = (*tried, flow.slot)
            self._forget(flow, failed=True)
            flow = None

    def _open(self, client: Any, local: bytes, tried: tuple[Slot, ...]) -> "Flow | None":
        """A flow for a client that has none; None when there is no backend, or no room: the datagram is lost."""
        if not admits(self.sources, client[0]) or not self._make_room():
            return None
        slot = self.balancer.pick(client[0], tried)
        if slot is None:
            return None
        try:
            flow = Flow(self, client, local, slot)
        except OSError:
            self.balancer.closed(slot)
            return None
        self._flows[client, local] = flow
        self.path.flows += 1
        self.accepted += 1
        if self._sweeper is None:
            self._sweeper = self.path.reactor.call_later(IDLE_S, self._sweep)
        return flow

    def _make_room(self) -> bool:
        if self.path.flows >= self.path.flows_max and self._flows:
            self._forget(next(iter(self._flows.values())))
        return self.path.flows < self.path.flows_max

    def answer(self, flow: "Flow", datagram: memoryview) -> None:
        """Send a backend's datagram to its client, from the address that the client asked."""
        try:
            if flow.local:
                source = (socket.IPPROTO_IP, IP_PKTINFO, answer_from(flow.local))
                self._sock.sendmsg([datagram], [source], 0, flow.client)
            else:
                self._sock.sendto(datagram, flow.client)
        except OSError:
            pass  # lost, as datagrams are

    def heard(self, flow: "Flow") -> None:
        """A datagram went either way: the flow lives on."""
        flow.heard = self.path.reactor.clock()
        self._flows.move_to_end((flow.client, flow.local))

    def refused(self, flow: "Flow") -> None:
        """The backend says that nobody listens."""
        self._forget(flow, failed=True)

    def drop_draining(self) -> None:
        """End the flows to backends that were removed."""
        for flow in [flow for flow in self._flows.values() if flow.slot.draining]:
            self._forget(flow)

    def _sweep(self) -> None:
        self._sweeper = None
        now = self.path.reactor.clock()
        for flow in list(self._flows.values()):
            if now - flow.heard < IDLE_S:
                self._sweeper = self.path.reactor.call_later(IDLE_S - (now - flow.heard), self._sweep)
                return
            self._forget(flow)

    def _forget(self, flow: "Flow", failed: bool = False) -> None:
        if self._flows.pop((flow.client, flow.local), None) is None:
            return
        flow.close()
        self.path.flows -= 1
        (self.balancer.failed if failed else self.balancer.closed)(flow.slot)

    def close(self) -> None:
        """Stop; every flow ends."""
        self.path.reactor.forget(self._sock.fileno())
        self._sock.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for flow in list(self._flows.values()):
            self._forget(flow)


class Flow:
    """A client's datagrams to a backend, and back."""

    __slots__ = ("_fd", "_send", "_sock", "client", "heard", "listener", "local", "slot")

    def __init__(self, listener: DatagramListener, client: Any, local: bytes, slot: Slot) -> None:
        """Raises OSError when there are no descriptors left or there is no route."""
        self.listener = listener
        self.client = client
        self.local = local
        self.slot = slot
        self.heard = listener.path.reactor.clock()
        self._sock = socket.socket(family_of(slot.backend.address), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._sock.connect((slot.backend.address, slot.backend.port))
        except OSError:
            self._sock.close()
            raise
        self._send = self._sock.send
        self._fd = self._sock.fileno()
        listener.path.reactor.add(self._fd, select.EPOLLIN, self._on_events)

    def send(self, datagram: memoryview) -> bool:
        """Send to the backend; False when it refused an earlier one."""
        try:
            self._send(datagram)
        except ConnectionRefusedError:
            return False
        except OSError:
            return True  # no room, or too large: this one is lost
        self.listener.heard(self)
        return True

    def _on_events(self, _events: int) -> None:
        path = self.listener.path
        for _ in range(TURN_DATAGRAMS):
            try:
                size = self._sock.recv_into(path.buffer)
            except BlockingIOError:
                break
            except OSError:
                return self.listener.refused(self)
            self.listener.answer(self, path.view[:size])
        self.listener.heard(self)
        return None

    def close(self) -> None:
        """Close the socket."""
        self.listener.path.reactor.forget(self._fd)
        self._sock.close()
        del self._send


def bind(address: str, port: int) -> socket.socket:
    """A bound UDP socket. On 0.0.0.0 it tells which address was asked (IP_PKTINFO, ip(7)). Raises OSError."""
    sock = socket.socket(family_of(address), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, int(address == "0.0.0.0"))
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def answer_from(asked: bytes) -> bytes:
    """The ``in_pktinfo`` of an answer, from that of the question: source address is the one that was asked; the route
    decides on the interface (ipi_ifindex 0)."""
    return bytes(4) + asked[8:12] + bytes(4)
