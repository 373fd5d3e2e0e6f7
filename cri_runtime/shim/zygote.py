"""The warm parent: everything imported, nothing else done, so that a pod's supervisor is one fork away."""

import gc
import os
import signal
import socket

from cri_runtime.linux.process import set_name
from cri_runtime.shim import messages, supervisor


def main(connection: socket.socket) -> None:
    """Fork a supervisor per request until the daemon is gone. Supervisors outlive this process."""
    set_name("knarr-zygote")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps supervisors
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    reader = messages.Reader(connection)
    # Forked pages stay shared as long as nobody writes to them: no collector that walks over them.
    gc.disable()
    gc.collect()
    gc.freeze()
    while True:
        try:
            for request, fds in reader.receive():
                if _fork(request, fds, connection):
                    return
        except (EOFError, OSError):  # the daemon is gone; so is what it asked for
            return


def _fork(request: dict, fds: list, connection: socket.socket) -> bool:
    """True in the child, when its work is done."""
    pid = os.fork()
    if pid == 0:
        connection.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        supervisor.main(request["pod"], *(socket.socket(fileno=fd) for fd in fds))
        return True
    for fd in fds:
        os.close(fd)
    messages.send(connection, {"seq": request["seq"], "ok": {"pid": pid}})
    return False
