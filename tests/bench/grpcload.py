"""A load generator for unary gRPC calls, light enough that the server is always the wall.

``grpcio`` spends some 100 µs of Python and C per call, more than etcd spends on a put: the client would be measured.
This one spends 6 to 10: it writes ready-made frames and of each answer reads only where it ends (HTTP/2, RFC 9113, over
plain sockets; one process, one thread). A client is a stream: it sends its next request when its last was answered.
Clients share connections as in real life, at most ``CLIENTS_PER_CONNECTION`` on each.
"""

import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

CLIENTS_PER_CONNECTION = 32

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
SETTINGS_INITIAL_WINDOW_SIZE = 4
WINDOW_MAX = 2**31 - 1
WINDOW_DEFAULT = 65_535


class CallFailed(Exception):
    """The server answered with an error, or ended the connection."""


@dataclass
class Result:
    """What one load gave: calls that were answered, over how many seconds, and each one's latency in seconds."""

    calls: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)


def load(
    address: tuple[str, int], method: str, request: Callable[[int], bytes], clients: int, seconds: float
) -> Result:
    """Have ``clients`` call ``method`` (``/package.Service/Name``) for ``seconds``.

    ``request(n)`` is the encoded message of the n-th call. Raises CallFailed, OSError.
    """
    result = Result()
    numbers = iter(range(1 << 62))
    count = -(-clients // CLIENTS_PER_CONNECTION)
    shares = [clients // count + (each < clients % count) for each in range(count)]
    connections = [Connection(address, method, lambda: request(next(numbers)), share, result) for share in shares]
    epoll = select.epoll()
    by_fd = {connection.sock.fileno(): connection for connection in connections}
    start = time.perf_counter()
    for fd, connection in by_fd.items():
        epoll.register(fd, select.EPOLLIN)
        connection.start()
    while (elapsed := time.perf_counter() - start) < seconds:
        for fd, _ in epoll.poll(seconds - elapsed):
            by_fd[fd].receive()
    result.seconds = time.perf_counter() - start
    for connection in connections:
        connection.sock.close()
    epoll.close()
    return result


class Connection:
    """One HTTP/2 connection and the clients on it."""

    def __init__(
        self, address: tuple[str, int], method: str, request: Callable[[], bytes], clients: int, result: Result
    ) -> None:
        self.sock = socket.create_connection(address)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers = headers(method, f"{address[0]}:{address[1]}")
        self._request = request
        self._clients = clients
        self._result = result
        self._stream = 1
        self._sent_at: dict[int, float] = {}
        self._answered: set[int] = set()  # streams whose message has come
        self._window = WINDOW_DEFAULT
        self._received = 0
        self._inbox = b""
        self._held = 0  # clients that wait for the server's window
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        settings = struct.pack(">HI", SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_MAX)
        grant = struct.pack(">I", WINDOW_MAX - WINDOW_DEFAULT)
        self.sock.sendall(preface + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, grant))

    def start(self) -> None:
        """Every client sends its first request."""
        self._send(self._clients)

    def _send(self, clients: int) -> None:
        """One request each for ``clients`` clients, in one write."""
        out = []
        now = time.perf_counter()
        for left in range(clients, 0, -1):
            message = self._request()
            if len(message) + 5 > self._window:
                self._held += left
                break
            self._window -= len(message) + 5
            stream, self._stream = self._stream, self._stream + 2
            out.append(frame(HEADERS, END_HEADERS, stream, self._headers))
            out.append(frame(DATA, END_STREAM, stream, b"\0" + struct.pack(">I", len(message)) + message))
            self._sent_at[stream] = now
        if out:
            self.sock.sendall(b"".join(out))

    def receive(self) -> None:
        """Read what has come; clients that were answered send again."""
        received = self.sock.recv(1 << 18)
        if not received:
            raise CallFailed("the server closed the connection")
        inbox = self._inbox + received
        at, end, free = 0, len(inbox), 0
        while end - at >= 9:
            size = int.from_bytes(inbox[at : at + 3], "big")
            if end - at < 9 + size:
                break
            kind, flags = inbox[at + 3], inbox[at + 4]
            stream = int.from_bytes(inbox[at + 5 : at + 9], "big")
            if kind == DATA:
                self._answered.add(stream)
                self._received += size
            elif kind != HEADERS:
                self._control(kind, flags, inbox[at + 9 : at + 9 + size])
            if flags & END_STREAM and kind in (DATA, HEADERS):
                self._finish(stream)
                free += 1
            at += 9 + size
        self._inbox = inbox[at:]
        if self._received > 1 << 28:
            self.sock.sendall(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received)))
            self._received = 0
        free, self._held = free + self._held, 0
        if free:
            self._send(free)

    def _finish(self, stream: int) -> None:
        if stream not in self._answered:  # trailers only: an error status
            raise CallFailed("the server answered with an error")
        self._answered.discard(stream)
        self._result.calls += 1
        self._result.latencies.append(time.perf_counter() - self._sent_at.pop(stream))

    def _control(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            self.sock.sendall(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self.sock.sendall(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            # Those of single streams are counted too: a request is far smaller than a stream's window, and servers that
            # speak of streams speak of the connection as well, so the mistake is never larger than what is in flight.
            self._window += int.from_bytes(payload, "big")
        elif kind in (GOAWAY, RST_STREAM):
            raise CallFailed(f"the server gave up: {payload[8:].decode(errors='replace') or payload.hex()}")


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame (RFC 9113 §4.1)."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def headers(method: str, authority: str) -> bytes:
    """A header block for a gRPC request, without the dynamic table: literals never indexed (RFC 7541 §6.2.2), so that
    the same bytes can be sent again and again."""
    block = b"\x83\x86"  # :method POST, :scheme http (static table)
    for name, value in (
        (b"\x04", method),  # :path
        (b"\x01", authority),  # :authority
        (b"\x0f\x10", "application/grpc"),  # content-type
        (None, "trailers"),
    ):
        block += (b"\x00" + text("te") if name is None else name) + text(value)
    return block


def text(value: str) -> bytes:
    """A string literal without Huffman coding (RFC 7541 §5.2)."""
    encoded = value.encode()
    assert len(encoded) < 127
    return bytes((len(encoded),)) + encoded
