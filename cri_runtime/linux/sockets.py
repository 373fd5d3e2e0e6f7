"""Unix sockets under long paths: through the directory's descriptor, since ``sun_path`` is 108 bytes."""

import os
import socket

BACKLOG = 8


def bind_unix(directory: str, name: str) -> socket.socket:
    """A listening stream socket ``directory/name``, mode 0600, replacing what had the name. Raises OSError."""
    dirfd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            os.unlink(name, dir_fd=dirfd)
        except FileNotFoundError:
            pass
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f"/proc/self/fd/{dirfd}/{name}")
        os.chmod(f"{directory}/{name}", 0o600)
        listener.listen(BACKLOG)
        return listener
    finally:
        os.close(dirfd)


def connect_unix(directory: str, name: str) -> socket.socket:
    """A connection to ``directory/name``. Raises OSError: ConnectionRefusedError when nobody listens any more."""
    dirfd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(f"/proc/self/fd/{dirfd}/{name}")
    except OSError:
        connection.close()
        raise
    finally:
        os.close(dirfd)
    return connection
