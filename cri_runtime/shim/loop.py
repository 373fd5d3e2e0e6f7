"""A small event loop on epoll, and a message channel that never blocks it."""

import os
import select
import socket

from cri_runtime.shim import messages

READ = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR
WRITE = select.EPOLLOUT
BACKLOG_BYTES_MAX = 4 << 20
"""What a channel keeps for a daemon that does not read; beyond it the daemon is cut off, and asks for the state when it
comes back."""


class Loop:
    """Calls back when descriptors are ready. One thread, no timers: whoever wants a deadline is the daemon."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict = {}
        self.stopping = False

    def watch(self, fd: int, callback, events: int = READ) -> None:  # type: ignore[no-untyped-def]
        """Call ``callback()`` whenever ``fd`` has any of ``events``; a second call changes both."""
        if fd in self._callbacks:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def forget(self, fd: int) -> None:
        """Stop watching. Idempotent; before ``fd`` is closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def run(self) -> None:
        """Until :attr:`stopping`."""
        while not self.stopping:
            for fd, _ in self._epoll.poll():
                callback = self._callbacks.get(fd)
                if callback is not None:
                    callback()

    def close(self) -> None:
        """For a forked child: let go of the parent's descriptors."""
        self._epoll.close()


class Channel:
    """One connection that carries messages both ways. ``on_message(message, fds)``; ``on_end()`` when it is over."""

    def __init__(self, loop: Loop, sock: socket.socket, on_message, on_end) -> None:  # type: ignore[no-untyped-def]
        self._loop, self._sock = loop, sock
        self._on_message, self._on_end = on_message, on_end
        self._reader = messages.Reader(sock)
        self._queue: list = []
        self._queued_bytes = 0
        sock.setblocking(False)
        loop.watch(sock.fileno(), self._readable)

    def send(self, message: dict, fds: tuple = ()) -> None:
        """Send now or when the peer reads; ``fds`` are closed once sent."""
        data = messages.encode({**message, "fds": len(fds)} if fds else message)
        self._queue.append((memoryview(data), fds))
        self._queued_bytes += len(data)
        self._flush()

    def close(self) -> None:
        """End the connection. Idempotent; ``on_end`` is not called."""
        if self._sock.fileno() < 0:
            return
        self._loop.forget(self._sock.fileno())
        self._sock.close()
        self._reader.close()
        for _, fds in self._queue:
            _close_all(fds)
        self._queue = []

    def _readable(self) -> None:
        try:
            received = self._reader.receive()
        except BlockingIOError:
            self._flush()
            return
        except (EOFError, OSError, ValueError, messages.ProtocolError):
            self._end()
            return
        for message, fds in received:
            self._on_message(message, fds)

    def _flush(self) -> None:
        try:
            while self._queue:
                data, fds = self._queue[0]
                sent = socket.send_fds(self._sock, [data], list(fds)) if fds else self._sock.send(data)
                _close_all(fds)
                self._queued_bytes -= sent
                self._queue[0] = (data[sent:], ())
                if sent == len(data):
                    self._queue.pop(0)
        except BlockingIOError:
            if self._queued_bytes > BACKLOG_BYTES_MAX:
                self._end()
                return
        except OSError:
            self._end()
            return
        if self._sock.fileno() >= 0:
            self._loop.watch(self._sock.fileno(), self._readable, READ | (WRITE if self._queue else 0))

    def _end(self) -> None:
        if self._sock.fileno() >= 0:
            self.close()
            self._on_end()


def _close_all(fds: tuple) -> None:
    for fd in fds:
        os.close(fd)
