"""Every message between the daemon, the zygote and the supervisors, and how it travels.

A message is a JSON object behind its length (u32, little-endian) on a stream socket; descriptors ride along as
SCM_RIGHTS, counted in ``"fds"``. A request has ``op`` and ``seq``; its answer has the same ``seq`` and either ``ok`` or
``error`` (``step``, ``errno``, ``path``, ``text``). An event has ``event`` and no ``seq``.
"""

import json
import os
import socket
import struct

REQUESTS = {
    # To the zygote. fds: the supervisor's connection and its listening socket.
    "pod": ("pod",),
    # To a supervisor.
    "start": ("container", "directory"),
    "exec": ("exec", "container", "process", "tty"),  # fds without tty: stdin, stdout, stderr. Answer with tty: master
    "signal": ("target", "signal"),  # of a container or exec
    "kill": ("container",),
    "attach": ("container", "stdout", "stderr", "stdin"),  # fds: the wanted outputs. Answer: stdin, if wanted
    "reopen": ("container",),
    "forget": ("container",),
    "state": (),
    "namespaces": (),  # Answer: the pod's network namespace
    "stop": (),  # Kill everything; the answer comes when it is gone
    "quit": (),
}
"""op: the fields it must have."""

EVENTS = {
    "exited": ("container", "status"),
    "exec_exited": ("exec", "exit_code"),
}

HEADER = struct.Struct("<I")
FD = struct.Struct("i")
LENGTH_MAX = 16 << 20
FDS_MAX = 8


class ProtocolError(Exception):
    """The peer does not speak this protocol, or another version of it."""


def encode(message: dict) -> bytes:
    """The message as bytes, header included."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return HEADER.pack(len(body)) + body


def check(message: dict) -> dict:
    """A received message of the closed set, unchanged. Raises ProtocolError."""
    if "op" in message:
        wanted = REQUESTS.get(message["op"])
    elif "event" in message:
        wanted = EVENTS.get(message["event"])
    else:
        wanted = ("seq",)
    if wanted is None or any(name not in message for name in wanted):
        raise ProtocolError(f"unknown or incomplete message {str(message)[:200]}")
    return message


class Reader:
    """Cuts what arrives on a socket into messages. Descriptors wait until the message that counts them is whole."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()
        self._fds: list = []

    def receive(self) -> list:
        """Receive once; the complete messages, each with its descriptors: ``[(message, [fd, ...]), ...]``.

        Raises EOFError at the end, BlockingIOError when nothing waits, ProtocolError, OSError.
        """
        # Not socket.recv_fds: on 3.11 that drops the flags, and descriptors would survive an exec.
        space = socket.CMSG_SPACE(FDS_MAX * FD.size)
        data, ancillary, _, _ = self._sock.recvmsg(1 << 16, space, socket.MSG_CMSG_CLOEXEC)
        for _, _, packed in ancillary:
            self._fds += [fd for (fd,) in FD.iter_unpack(packed)]
        if not data:
            self.close()
            raise EOFError
        self._buffer += data
        return self._cut()

    def _cut(self) -> list:
        messages = []
        while len(self._buffer) >= HEADER.size:
            (length,) = HEADER.unpack_from(self._buffer)
            if length > LENGTH_MAX:
                raise ProtocolError(f"a message of {length} bytes")
            end = HEADER.size + length
            if len(self._buffer) < end:
                break
            message = check(json.loads(self._buffer[HEADER.size : end]))
            del self._buffer[:end]
            count = message.pop("fds", 0)
            messages.append((message, self._fds[:count]))
            del self._fds[:count]
        return messages

    def close(self) -> None:
        """Close descriptors that no message claimed."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []


def send(sock: socket.socket, message: dict, fds: tuple = ()) -> None:
    """Send a message whole. For blocking sockets, or messages that are known to fit. Raises OSError."""
    data = encode({**message, "fds": len(fds)} if fds else message)
    sent = socket.send_fds(sock, [data], list(fds)) if fds else sock.send(data)
    if sent < len(data):
        sock.sendall(data[sent:])
