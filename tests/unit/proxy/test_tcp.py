"""The data path's corners, on real loopback sockets: time-outs, limits, exhaustion."""

import errno
import os
import random
import select
import socket
import threading
import time
from contextlib import ExitStack

import pytest

from proxy import tcp
from proxy.balancer import Backend, Balancer
from proxy.bulk import Pipe, PipePool
from proxy.reactor import Reactor


class Running:
    """A data path whose loop runs in a thread."""

    def __init__(self, stack, connections_max=100):
        self.reactor = Reactor()
        self.path = tcp.DataPath(self.reactor, connections_max)
        self._stack = stack
        wake, self._wake = socket.socketpair()
        self.reactor.add(wake.fileno(), select.EPOLLIN, lambda _events: self.reactor.stop())
        self._thread = threading.Thread(target=self.reactor.run)
        stack.callback(wake.close)
        stack.callback(self._wake.close)

    def listen(self, *backends):
        """A listener that spreads over the addresses of these sockets; its address."""
        sock = tcp.listen("127.0.0.1", 0)
        balancer = Balancer(time.monotonic, random.Random(1))
        balancer.update([Backend(*backend.getsockname()) for backend in backends])
        self.listener = tcp.Listener(self.path, balancer, sock)
        return sock.getsockname()

    def start(self):
        self._thread.start()
        self._stack.callback(self.stop)

    def stop(self):
        self._wake.send(b"x")
        self._thread.join(10)
        for connection in list(self.path.connections):
            connection.close()
        self.listener.close()
        self.path.pipes.close()
        self.reactor.close()


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


def backend(stack, backlog=100):
    return stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=backlog))


def connect(stack, address):
    return stack.enter_context(socket.create_connection(address, timeout=20))


def accept(stack, server):
    server.settimeout(20)
    return stack.enter_context(server.accept()[0])


def test_backend_that_does_not_answer_is_given_up_for_another(stack, monkeypatch):
    monkeypatch.setattr(tcp, "CONNECT_TIMEOUT_S", 0.1)
    silent, good = backend(stack, backlog=0), backend(stack)
    connect(stack, silent.getsockname())  # its backlog is full: the kernel drops further SYNs
    running = Running(stack)
    address = running.listen(silent, good)
    running.start()
    for _ in range(4):
        client = connect(stack, address)
        client.sendall(b"hello")
        assert accept(stack, good).recv(5) == b"hello"


def test_no_more_connections_than_allowed_the_others_wait(stack):
    server = backend(stack)
    running = Running(stack, connections_max=3)
    address = running.listen(server)
    running.start()
    clients = [connect(stack, address) for _ in range(5)]  # the kernel's backlog takes them
    pairs = [accept(stack, server) for _ in range(3)]
    server.settimeout(0.3)
    with pytest.raises(TimeoutError):
        server.accept()
    for number, client in enumerate(clients):
        client.sendall(b"%d" % number)
    assert sorted(pair.recv(1) for pair in pairs) == [b"0", b"1", b"2"]
    for ended in (*clients[:3], *pairs):
        ended.close()
    assert {accept(stack, server).recv(1) for _ in range(2)} == {b"3", b"4"}


def test_out_of_descriptors_clients_wait_and_nothing_spins(stack, monkeypatch):
    server = backend(stack)
    running = Running(stack)
    address = running.listen(server)
    tries = []
    real = tcp.accept

    def exhausted(listener):
        tries.append(time.monotonic())
        if len(tries) <= 2:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(listener)

    monkeypatch.setattr(tcp, "accept", exhausted)
    running.start()
    client = connect(stack, address)
    client.sendall(b"x")
    assert accept(stack, server).recv(1) == b"x"
    assert tries[1] - tries[0] > tcp.RETRY_ACCEPT_S / 2


def test_no_descriptor_for_the_backend_resets_the_client_and_blames_nobody(stack, monkeypatch):
    server = backend(stack)
    running = Running(stack)
    address = running.listen(server)

    def exhausted(_address):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(tcp, "open_socket", exhausted)
    running.start()
    with pytest.raises(ConnectionResetError):
        connect(stack, address).recv(1)
    (slot,) = running.listener.balancer.slots()
    assert slot.open == 0 and slot.suspect_until == 0


def test_without_pipes_bulk_is_copied(stack, monkeypatch):
    monkeypatch.setattr(PipePool, "take", lambda self: None)
    server = backend(stack)
    running = Running(stack)
    address = running.listen(server)
    running.start()
    client, pod = connect(stack, address), None
    data = random.Random(2).randbytes(8 << 20)
    sender = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
    sender.start()
    pod = accept(stack, server)
    received = b"".join(iter(lambda: pod.recv(1 << 20), b""))
    sender.join()
    assert received == data


def test_books_are_empty_when_all_has_ended(stack):
    server = backend(stack)
    running = Running(stack)
    address = running.listen(server)
    idle = threading.Event()
    running.path.on_idle = idle.set
    running.start()
    client = connect(stack, address)
    pod = accept(stack, server)
    client.close()
    assert pod.recv(1) == b""
    pod.close()
    assert idle.wait(20)
    (slot,) = running.listener.balancer.slots()
    assert (slot.open, slot.total, running.listener.accepted) == (0, 1, 1)
    assert len(running.reactor.handlers) == 2  # the listener and the test's own


def test_pool_keeps_empty_pipes_only():
    pool = PipePool()
    pipe = pool.take()
    assert isinstance(pipe, Pipe)
    pool.give_back(pipe)
    assert pool.take() is pipe
    os.write(pipe.write_fd, b"x")
    pipe.held = 1
    pool.give_back(pipe)
    with pytest.raises(OSError):
        os.fstat(pipe.read_fd)
    pool.close()


def test_timers_run_in_order_and_cancelled_ones_never():
    reactor = Reactor()
    calls = []
    reactor.call_later(0.02, lambda: calls.append("second"))
    reactor.call_later(0.01, lambda: calls.append("first"))
    reactor.call_later(0.015, lambda: calls.append("never")).cancel()
    reactor.call_later(0.03, reactor.stop)
    reactor.call_soon(calls.append, "at once")
    reactor.run()
    reactor.close()
    assert calls == ["at once", "first", "second"]
