"""CRI's log format. Pure framing, and the file it goes to.

Each line: ``<RFC 3339 time> <stdout|stderr> <P|F> <content>``. F ends a line of the stream; P says it goes on in the
stream's next entry. Source: Kubernetes, kubelet's CRI log format; docs of containerd for the 16 KiB limit.
"""

import os
import time

CONTENT_MAX = 16 << 10
"""Bytes of content per entry, as in containerd."""


class Framer:
    """Frames one stream. A line that has not ended yet waits, at most CONTENT_MAX bytes of it."""

    def __init__(self, stream: str) -> None:
        self._stream = stream.encode()
        self._rest = b""

    def feed(self, data: bytes, stamp: bytes) -> bytes:
        """The entries that ``data`` completes, ready to append to a log."""
        full, partial = (b"%s %s %s " % (stamp, self._stream, tag) for tag in (b"F", b"P"))
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        entries = []
        for line in lines:
            while len(line) > CONTENT_MAX:
                entries.append(partial + line[:CONTENT_MAX])
                line = line[CONTENT_MAX:]
            entries.append(full + (line[:-1] if line.endswith(b"\r") else line))
        while len(self._rest) >= CONTENT_MAX:
            entries.append(partial + self._rest[:CONTENT_MAX])
            self._rest = self._rest[CONTENT_MAX:]
        return b"\n".join(entries) + b"\n" if entries else b""

    def finish(self, stamp: bytes) -> bytes:
        """The entry for text that no newline ended: a partial one."""
        rest, self._rest = self._rest, b""
        return b"%s %s P %s\n" % (stamp, self._stream, rest) if rest else b""


def timestamp(now_ns: int) -> bytes:
    """RFC 3339 in UTC with nine decimals; the same length always, so that logs sort."""
    seconds, nanoseconds = divmod(now_ns, 1_000_000_000)
    t = time.gmtime(seconds)
    return b"%04d-%02d-%02dT%02d:%02d:%02d.%09dZ" % (*t[:6], nanoseconds)


class LogFile:
    """An append-only log. A write that the disk refuses is counted and dropped: a full disk must stop no container."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.dropped_bytes = 0
        self._fd = self._open()

    def append(self, data: bytes) -> None:
        """Append whole entries."""
        try:
            done = os.write(self._fd, data)
        except OSError:
            done = 0
        self.dropped_bytes += len(data) - done

    def reopen(self) -> None:
        """Go on in a new file at the same path. Raises OSError, and then goes on in the old one."""
        fd = self._open()
        os.close(self._fd)
        self._fd = fd

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
