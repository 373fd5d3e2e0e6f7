"""A container's output: read without blocking, framed into its log, copied to whoever is attached."""

import errno
import fcntl
import os
import time

from cri_runtime.shim.logs import Framer, LogFile, timestamp
from cri_runtime.shim.loop import WRITE, Loop

CHUNK_BYTES = 64 << 10
F_SETPIPE_SZ = 1031
ATTACH_BACKLOG_BYTES = 1 << 20
"""What an attached client may lag behind before it is cut off; one from before the start is waited for instead."""


class Output:
    """One stream (``stdout``, ``stderr``) of one container."""

    def __init__(self, loop: Loop, name: str, fd: int, log: "LogFile | None") -> None:
        self._loop, self._fd, self._log = loop, fd, log
        self._framer = Framer(name)
        self._attached: list = []
        self._patient: set = set()  # those of _attached that are waited for
        self._held: dict = {}  # what they have not taken yet; nothing is read meanwhile
        os.set_blocking(fd, False)
        loop.watch(fd, self._pump)

    def attach(self, fd: int, patient: bool = False) -> None:
        """Copy to the pipe ``fd`` what comes from now on; closed at the end, or when its reader leaves or lags.

        One that is ``patient`` gets every byte: while it lags, the container waits.
        """
        os.set_blocking(fd, False)
        if patient:
            self._patient.add(fd)
        try:
            fcntl.fcntl(fd, F_SETPIPE_SZ, ATTACH_BACKLOG_BYTES)
        except OSError:
            pass  # not a pipe, or above the limit for pipes: its own size then
        self._attached.append(fd)

    def finish(self) -> None:
        """Take what is still in the pipe, end the log's last line and close everything."""
        while self._fd >= 0 and self._pump():
            pass
        self._close()

    def _pump(self) -> bool:
        """Handle one chunk. False when there was none."""
        try:
            data = os.read(self._fd, CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError as err:
            if err.errno != errno.EIO:  # EIO: the last process on the terminal is gone
                raise
            data = b""
        if not data:
            self._close()
            return False
        if self._log:
            entries = self._framer.feed(data, timestamp(time.time_ns()))
            if entries:
                self._log.append(entries)
        for fd in list(self._attached):
            self._copy(fd, data)
        return True

    def _copy(self, fd: int, data: bytes) -> None:
        if fd in self._held:  # the container has ended: the rest of its output waits as well
            self._held[fd] += data
            return
        rest = _write(fd, data)
        if rest and fd in self._patient:
            self._hold(fd, rest)
        elif rest is None or rest:
            self._drop(fd)

    def _hold(self, fd: int, rest: bytes) -> None:
        """Read no more until ``fd`` has taken ``rest``."""
        self._held[fd] = rest
        self._loop.forget(self._fd)
        self._loop.watch(fd, lambda: self._resume(fd), WRITE)

    def _resume(self, fd: int) -> None:
        rest = _write(fd, self._held[fd])
        if rest:
            self._held[fd] = rest
            return
        del self._held[fd]
        self._loop.forget(fd)
        if rest is None or self._fd < 0:
            self._drop(fd)
        if self._fd >= 0 and not self._held:
            self._loop.watch(self._fd, self._pump)

    def _drop(self, fd: int) -> None:
        self._attached.remove(fd)
        self._patient.discard(fd)
        os.close(fd)

    def _close(self) -> None:
        if self._fd < 0:
            return
        self._loop.forget(self._fd)
        os.close(self._fd)
        self._fd = -1
        if self._log:
            tail = self._framer.finish(timestamp(time.time_ns()))
            if tail:
                self._log.append(tail)
        for fd in [fd for fd in self._attached if fd not in self._held]:
            self._drop(fd)


def _write(fd: int, data: bytes) -> "bytes | None":
    """What could not be written yet; None when the reader is gone."""
    try:
        return data[os.write(fd, data) :]
    except BlockingIOError:
        return data
    except OSError:
        return None
