"""Pipes for splice(2): how bytes of a bulk transfer go from socket to socket without passing through Python.

A pipe holds pages by reference, so a transfer costs two system calls per megabyte and no copy. It also costs two
descriptors and two extra calls per read, so only a direction that proved to be bulk gets one.
"""

import fcntl
import os

PIPE_BYTES = 1 << 20
"""Asked of the kernel for each pipe; it gives less when the user's pipe pages are used up."""

IDLE_PIPES_MAX = 32
"""Empty pipes kept for the next bulk transfer."""


class Pipe:
    """A kernel pipe and how many bytes are in it."""

    __slots__ = ("capacity", "held", "read_fd", "write_fd")

    def __init__(self) -> None:
        """Raises OSError (EMFILE) when there are no descriptors left."""
        self.read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.held = 0
        try:
            self.capacity: int = fcntl.fcntl(self.write_fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            self.capacity = fcntl.fcntl(self.write_fd, fcntl.F_GETPIPE_SZ)

    def fill(self, fd: int) -> int:
        """Move what ``fd`` has into the pipe. Returns the bytes, 0 at end of file. Raises BlockingIOError, OSError."""
        moved = os.splice(fd, self.write_fd, self.capacity, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE)
        self.held += moved
        return moved

    def pour(self, fd: int) -> None:
        """Move bytes from the pipe to ``fd``, as many as it takes. Raises BlockingIOError, OSError."""
        self.held -= os.splice(self.read_fd, fd, self.held, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE)

    def close(self) -> None:
        """Drop the pipe and what is in it."""
        os.close(self.read_fd)
        os.close(self.write_fd)


class PipePool:
    """Lends pipes; keeps a few empty ones."""

    def __init__(self) -> None:
        self._idle: list[Pipe] = []

    def take(self) -> Pipe | None:
        """An empty pipe, or None when the process has no descriptors to spare: copying works as well, only slower."""
        if self._idle:
            return self._idle.pop()
        try:
            return Pipe()
        except OSError:
            return None

    def give_back(self, pipe: Pipe) -> None:
        """Return a pipe; one with bytes in it is dropped with them."""
        if pipe.held or len(self._idle) >= IDLE_PIPES_MAX:
            pipe.close()
        else:
            self._idle.append(pipe)

    def close(self) -> None:
        """Close the idle pipes."""
        for pipe in self._idle:
            pipe.close()
        self._idle.clear()
