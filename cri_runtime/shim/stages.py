"""How a child on its way into a container reports: the step, errno, path; over a socket that exec closes."""

import os
import socket

from cri_runtime.shim import messages


class Failure(Exception):
    """A stage failed; crosses processes as a dictionary."""

    def __init__(self, step: str, errno: int, path: str, text: str) -> None:
        super().__init__(f"{step}: {text}" + (f": {path}" if path else ""))
        self.step, self.errno, self.path, self.text = step, errno, path, text

    def to_dict(self) -> dict:
        """The form that travels."""
        return {"step": self.step, "errno": self.errno, "path": self.path, "text": self.text}

    @staticmethod
    def of(step: str, err: BaseException) -> "Failure":
        """What ``err`` means when it ended ``step``."""
        if isinstance(err, Failure):
            return err
        if isinstance(err, OSError):
            return Failure(step, err.errno or 0, str(err.filename or ""), err.strerror or str(err))
        return Failure(step, 0, "", f"{type(err).__name__}: {err}")


class Steps:
    """Remembers which step runs, so that whoever catches the failure can name it."""

    def __init__(self) -> None:
        self.current = "begin"

    def __call__(self, name: str) -> None:
        """From here on it is step ``name``."""
        self.current = name


class Status:
    """A child's end of the socket to its supervisor. Its end of file, without an error before it, says: exec worked."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, message: dict, fds: tuple = ()) -> None:
        """Send a message; the socket's buffer is always large enough."""
        messages.send(self._sock, message, fds)

    def check(self) -> None:
        """Raises EOFError when the supervisor is gone: it may have died before we asked to die with it."""
        try:
            if not self._sock.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK):
                raise EOFError
        except BlockingIOError:
            pass

    def move(self, fd: int) -> None:
        """Go on at descriptor ``fd``, whatever that was before."""
        if self._sock.fileno() != fd:
            os.dup2(self._sock.fileno(), fd, inheritable=False)
            self._sock.close()
            self._sock = socket.socket(fileno=fd)
