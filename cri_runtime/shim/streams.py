"""A container's output: read without blocking, framed into its log, copied to whoever is attached."""

import errno
import fcntl
import os
import time

from cri_runtime.shim.logs import Framer, LogFile, timestamp
from cri_runtime.shim.loop import Loop

CHUNK_BYTES = 64 << 10
F_SETPIPE_SZ = 1031
ATTACH_BACKLOG_BYTES = 1 << 20
"""What an attached client may lag behind before it is cut off."""


class Output:
    """One stream (``stdout``, ``stderr``) of one container."""

    def __init__(self, loop: Loop, name: str, fd: int, log: "LogFile | None") -> None:
        self._loop, self._fd, self._log = loop, fd, log
        self._framer = Framer(name)
        self._attached: list = []
        os.set_blocking(fd, False)
        loop.watch(fd, self._pump)

    def attach(self, fd: int) -> None:
        """Copy to the pipe ``fd`` what comes from now on; closed at the end, or when its reader lags or leaves."""
        os.set_blocking(fd, False)
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
        try:
            complete = os.write(fd, data) == len(data)
        except OSError:
            complete = False
        if not complete:
            self._attached.remove(fd)
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
        for fd in self._attached:
            os.close(fd)
        self._attached = []
