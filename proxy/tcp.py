"""The TCP data path: accept, choose a backend, connect, and carry bytes both ways until both sides are done.

A ``Connection`` has two ``End``s, each a non-blocking socket that knows its peer. Every socket is registered once,
edge-triggered, for everything: no ``epoll_ctl`` follows, and no event arrives while an end waits for a slow peer. Rules
that this makes necessary:

- *Reads go on until the socket is dry.* A short read of a stream socket means dry (epoll(7)), unless the events said
  that the peer has hung up: then until end of file, as no further edge will announce it.
- *Backpressure.* What a full socket did not take waits in ``pending`` (at most one buffer), or in a pipe; its peer is
  not read meanwhile, and is read until dry once the edge EPOLLOUT has let the rest go.
- *Half-close.* End of file on one end shuts the writing half of the other, after all bytes went; the connection ends
  when both directions did. A reset on one end becomes a reset on the other.
- *Connect first, read after.* The client is not read before its backend is connected, so a refused connection can be
  tried on another backend with nothing to replay.
"""

import errno
import select
import socket
import struct
from collections.abc import Callable

from proxy.balancer import Balancer, Slot
from proxy.bulk import Pipe, PipePool
from proxy.reactor import Reactor, Timer
from proxy.sockets import IP_FREEBIND, Networks, admits, family_of, keep_alive

BUFFER_BYTES = 64 << 10
"""One read. The buffer is shared by all connections: it is empty again before the next event is looked at."""

BULK_READS = 3
"""After so many full buffers in a row a direction is bulk, and splice takes over."""

TURN_READS = 16
"""Reads one connection may do before the others get their turn."""

CONNECT_TIMEOUT_S = 5.0
"""How long a backend may take to answer a connection before the next one is tried, seconds."""

ACCEPTS_PER_EVENT = 16
BACKLOG = 4096
RETRY_ACCEPT_S = 0.2

WATCHED = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
LAST_WORDS = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
OUT, READABLE = select.EPOLLOUT, ~select.EPOLLOUT

EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class DataPath:
    """What all connections share: the loop, the buffer, the pipes, and the count of what is open."""

    def __init__(self, reactor: Reactor, connections_max: int) -> None:
        """``connections_max``: when so many are open, new ones wait in the kernel's backlog."""
        self.reactor = reactor
        self.buffer = bytearray(BUFFER_BYTES)
        self.view = memoryview(self.buffer)
        self.pipes = PipePool()
        self.connections: set[Connection] = set()
        self.connections_max = connections_max
        self.on_idle: Callable[[], None] | None = None
        self.flows = self.flows_max = 0  # of UDP: how many there are, and may be
        self._connecting: dict[Connection, float] = {}  # to the moment each is given up; oldest first
        self._watchdog: Timer | None = None
        self._waiting: list[Listener] = []

    def full(self) -> bool:
        """No further connection may be accepted now."""
        return len(self.connections) >= self.connections_max

    def wait_for_room(self, listener: "Listener") -> None:
        """Have ``listener`` told when a connection has ended."""
        if listener not in self._waiting:
            self._waiting.append(listener)

    def watch_connect(self, connection: "Connection") -> None:
        """Have ``connection`` told when its backend does not answer in time. One timer serves all: they wait equally
        long, so the oldest is due first."""
        self._connecting[connection] = self.reactor.clock() + CONNECT_TIMEOUT_S
        if self._watchdog is None:
            self._watchdog = self.reactor.call_later(CONNECT_TIMEOUT_S, self._give_up_late)

    def answered(self, connection: "Connection") -> None:
        """The backend of ``connection`` did answer, or nobody waits for it any more."""
        self._connecting.pop(connection, None)

    def _give_up_late(self) -> None:
        self._watchdog = None
        now = self.reactor.clock()
        for connection in [c for c, due in self._connecting.items() if due <= now]:
            connection.next_backend()
        if self._connecting and self._watchdog is None:
            oldest = next(iter(self._connecting.values()))
            self._watchdog = self.reactor.call_later(oldest - now, self._give_up_late)

    def ended(self, connection: "Connection") -> None:
        """A connection is gone: someone may be waiting for its place."""
        self.connections.discard(connection)
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for listener in waiting:
                self.reactor.call_soon(listener.resume, None)
        if not self.connections and self.on_idle is not None:
            self.on_idle()


class Listener:
    """An open service address: accepts, and gives each connection a backend."""

    def __init__(
        self,
        path: DataPath,
        balancer: Balancer,
        sock: socket.socket,
        sources: Networks = (),
    ) -> None:
        """``sock`` is bound and listening; the listener owns it. ``sources``: who is let in, everybody when empty."""
        self.path = path
        self.balancer = balancer
        self.sources = sources
        self.accepted = 0
        self._sock = sock
        self._paused = False
        self._retry: Timer | None = None
        path.reactor.add(sock.fileno(), select.EPOLLIN, self.on_events)

    def on_events(self, _events: int) -> None:
        """Accept what waits, up to a turn's worth; level-triggered, so the rest is announced again."""
        for _ in range(ACCEPTS_PER_EVENT):
            if self.path.full():
                return self._pause()
            try:
                sock, client = accept(self._sock)
            except BlockingIOError:
                return None
            except OSError as err:
                if err.errno in EXHAUSTED:
                    return self._pause()
                continue  # that client is gone already (ECONNABORTED and the like, accept(2))
            self.accepted += 1
            self._admit(sock, client)
        return None

    def _admit(self, sock: socket.socket, client: str) -> None:
        if not admits(self.sources, client):
            return reset(sock)
        connection = Connection(self, sock, client)
        self.path.connections.add(connection)
        connection.connect()
        return None

    def _pause(self) -> None:
        """Out of descriptors, memory or connections: leave clients in the backlog until something has ended."""
        if not self._paused:
            self._paused = True
            self.path.reactor.modify(self._sock.fileno(), 0)
            self.path.wait_for_room(self)
            self._retry = self.path.reactor.call_later(RETRY_ACCEPT_S, self.resume)

    def resume(self, _: None = None) -> None:
        """Accept again. Called when a connection ended, and a little later in any case: others use descriptors too."""
        if self._paused and self._sock.fileno() >= 0:
            self._paused = False
            if self._retry is not None:
                self._retry.cancel()
            self.path.reactor.modify(self._sock.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """Accept no more. Live connections go on."""
        self.path.reactor.forget(self._sock.fileno())
        self._sock.close()


class End:
    """One end of a connection: its socket, and what waits to be written to it."""

    __slots__ = (
        "connection",
        "done",
        "fd",
        "full",
        "full_reads",
        "path",
        "peer",
        "pending",
        "pipe",
        "sock",
        "unwritable",
    )

    def __init__(self, connection: "Connection", sock: socket.socket) -> None:
        self.connection = connection
        self.path = connection.path
        self.sock = sock
        self.fd = sock.fileno()
        self.peer: End | None = None
        self.full = False  # our socket takes no more for now: EPOLLOUT will tell
        self.pending: memoryview | None = None  # read from the peer, not yet taken by our socket; only while full
        self.pipe: Pipe | None = None  # what we read goes through it, while this direction is bulk
        self.full_reads = 0
        self.done = False  # we have read end of file
        self.unwritable = False  # our socket takes no more bytes, ever

    def on_events(self, events: int) -> None:
        """Go on writing if that was stuck; go on reading if there is something."""
        if self.full and events & OUT:
            self._unstick()
        if events & READABLE:
            self.pump(events & LAST_WORDS)

    def pump(self, until_end: int = 1) -> None:
        """Read from our socket and write to the peer's until one of them has had enough.

        ``until_end``: a short read does not mean dry, go on until the kernel says so.
        """
        peer = self.peer
        if peer is None or peer.full or peer.unwritable or self.done:
            return None  # closed; or the peer's EPOLLOUT will call us
        if self.pipe is not None:
            return self._pump_pipe(self.pipe, peer)
        buffer, view, receive, send = self.path.buffer, self.path.view, self.sock.recv_into, peer.sock.send
        for _ in range(TURN_READS):
            try:
                size = receive(buffer)
            except BlockingIOError:
                return None
            except OSError:
                return self.connection.reset()
            if not size:
                return self._end_of_file(peer)
            try:
                sent = send(view[:size])
            except BlockingIOError:
                sent = 0
            except OSError:
                return self._peer_gone(peer)
            if sent < size:
                peer.pending = memoryview(bytes(view[sent:size]))
                peer.full = True
                return None
            if size < BUFFER_BYTES:
                self.full_reads = 0
                if not until_end:
                    return None
            else:
                self.full_reads += 1
                if self.full_reads >= BULK_READS:
                    self.full_reads = 0
                    self.pipe = self.path.pipes.take()
                    if self.pipe is not None:
                        break
        self.path.reactor.call_soon(self.pump, 1)
        return None

    def _pump_pipe(self, pipe: Pipe, peer: "End") -> None:
        """The same through a pipe. Always until dry: each call moves up to a megabyte."""
        moved = 0
        for _ in range(TURN_READS):
            if not pipe.held:
                try:
                    size = pipe.fill(self.fd)
                except BlockingIOError:
                    if moved < BUFFER_BYTES:  # no longer bulk
                        self._drop_pipe()
                    return None
                except OSError:
                    return self.connection.reset()
                if not size:
                    return self._end_of_file(peer)
                moved += size
            try:
                pipe.pour(peer.fd)
            except BlockingIOError:
                peer.full = True
                return None
            except OSError:
                return self._peer_gone(peer)
        self.path.reactor.call_soon(self.pump, 1)
        return None

    def _unstick(self) -> None:
        """Our socket has room again: write what waits, then let the peer read on until dry."""
        peer = self.peer
        if peer is None or self.unwritable:
            return
        if self.pending is not None:
            try:
                sent = self.sock.send(self.pending)
            except BlockingIOError:
                return
            except OSError:
                return peer._peer_gone(self)
            if sent < len(self.pending):
                self.pending = self.pending[sent:]
                return
        self.pending = None
        self.full = False
        peer.pump(1)

    def _end_of_file(self, peer: "End") -> None:
        """Our side has said all it will; everything it said has been taken by the peer's socket."""
        self.done = True
        self._drop_pipe()
        if peer.done or self.unwritable:
            return self.connection.close()
        try:
            peer.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.connection.reset()

    def _peer_gone(self, peer: "End") -> None:
        """The peer's socket refuses bytes: it was reset. What it had said before still goes through, then all ends."""
        peer.unwritable = True
        peer.pending = None
        self._drop_pipe()
        peer.pump(1)

    def _drop_pipe(self) -> None:
        if self.pipe is not None:
            self.path.pipes.give_back(self.pipe)
            self.pipe = None

    def close(self) -> None:
        """Close the socket and forget the peer."""
        self.path.reactor.forget(self.fd)
        self.sock.close()
        self._drop_pipe()
        self.peer = self.pending = None
        del self.connection  # breaks the cycle: nothing is left for the garbage collector


class Connection:
    """A client, its backend, and the attempts to reach one."""

    __slots__ = ("client", "client_address", "listener", "path", "slot", "tried", "upstream")

    def __init__(self, listener: Listener, sock: socket.socket, client_address: str) -> None:
        self.listener = listener
        self.path = listener.path
        self.client_address = client_address
        self.client = End(self, sock)
        self.upstream: End | None = None
        self.slot: Slot | None = None
        self.tried: tuple[Slot, ...] = ()

    def connect(self) -> None:
        """Try backends until one is being connected to; reset the client when there is none left."""
        while True:
            self.slot = self.listener.balancer.pick(self.client_address, self.tried)
            if self.slot is None:
                return self.reset()
            try:
                sock = open_socket(self.slot.backend.address)
            except OSError:  # out of descriptors: no backend's fault
                self.listener.balancer.closed(self.slot)
                self.slot = None
                return self.reset()
            error = sock.connect_ex((self.slot.backend.address, self.slot.backend.port))
            if error in (0, errno.EINPROGRESS):
                self.upstream = End(self, sock)
                self.path.reactor.add(sock.fileno(), WATCHED, self._on_connecting)
                self.path.watch_connect(self)
                return None
            sock.close()
            self._count_failure()

    def _on_connecting(self, events: int) -> None:
        """The backend has answered, one way or the other."""
        upstream = self.upstream
        if upstream is None or not events & (LAST_WORDS | OUT):
            return
        if events & (select.EPOLLERR | select.EPOLLHUP):
            return self.next_backend()
        self.path.answered(self)
        client = self.client
        client.peer, upstream.peer = upstream, client
        reactor = self.path.reactor
        reactor.handlers[upstream.fd] = upstream.on_events
        reactor.add(client.fd, WATCHED, client.on_events)
        if events & READABLE:  # a server that speaks first
            upstream.pump(1)

    def next_backend(self) -> None:
        """This backend does not answer: try another."""
        self.path.answered(self)
        if self.upstream is not None:
            self.upstream.close()
            self.upstream = None
        self._count_failure()
        self.connect()

    def _count_failure(self) -> None:
        if self.slot is not None:
            self.listener.balancer.failed(self.slot)
            self.tried = (*self.tried, self.slot)
            self.slot = None

    def reset(self) -> None:
        """End both sides with RST, as the network would: bytes may have been lost, and the other side must know."""
        for end in (self.client, self.upstream):
            if end is not None and end.sock.fileno() >= 0:
                reset_on_close(end.sock)
        self.close()

    def close(self) -> None:
        """End both sides. Harmless when they have ended."""
        if self not in self.path.connections:
            return
        self.path.answered(self)
        self.client.close()
        if self.upstream is not None:
            self.upstream.close()
        if self.slot is not None:
            self.listener.balancer.closed(self.slot)
            self.slot = None
        self.path.ended(self)


def accept(listener: socket.socket) -> tuple[socket.socket, str]:
    """The next connection, non-blocking, and the address of its client. Raises BlockingIOError, OSError.

    What ``listener.accept()`` does, without asking the kernel what we know already: that costs a tenth of the rate of
    new connections.
    """
    fd, address = listener._accept()  # type: ignore[attr-defined]
    sock = socket.socket(listener.family, socket.SOCK_STREAM, 0, fd)
    sock.setblocking(False)
    return sock, address[0]


def open_socket(address: str) -> socket.socket:
    """A non-blocking TCP socket for connecting to ``address``. Raises OSError when there are no descriptors left."""
    sock = socket.socket(family_of(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    keep_alive(sock)
    return sock


def listen(address: str, port: int) -> socket.socket:
    """A listening socket whose accepted sockets inherit TCP_NODELAY and keepalive (tcp(7)).

    The address need not be the node's own yet (IP_FREEBIND): whether packets reach it is the routes' business.
    Raises OSError: the address and port are taken, most likely.
    """
    sock = socket.socket(family_of(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        keep_alive(sock)
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def reset_on_close(sock: socket.socket) -> None:
    """Make closing ``sock`` send RST and drop what is queued (SO_LINGER of zero seconds)."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    except OSError:
        pass  # it is gone already, which is what was wanted


def reset(sock: socket.socket) -> None:
    """Refuse a connection that was accepted."""
    reset_on_close(sock)
    sock.close()
