"""``python -I -S -X utf8 .../cri_runtime/shim``: the zygote, with its connection to the daemon as standard input.

Starts itself once more through a read-only mount of the interpreter: whatever a container gets hold of by way of
/proc/<pid>/exe can then not be written to.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import array  # noqa: F401 -- socket.recv_fds would import it after the fork
import socket

from cri_runtime.linux.constants import MOUNT_ATTR_RDONLY
from cri_runtime.linux.mount import mount_setattr, open_tree
from cri_runtime.shim import zygote

SEALED = "KNARR_SHIM_SEALED"


def seal() -> None:
    """Exec the same program again from a read-only mount of its own; on kernels before 5.12 go on as we are."""
    try:
        tree = open_tree("/proc/self/exe", recursive=False)
        mount_setattr(tree, MOUNT_ATTR_RDONLY)
    except OSError:
        return
    os.execve(f"/proc/self/fd/{tree}", sys.orig_argv, {SEALED: "1"})


if __name__ == "__main__":
    if SEALED not in os.environ:
        seal()
    os.environ.pop(SEALED, None)
    connection = socket.socket(fileno=os.dup(0))
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    zygote.main(connection)
    os._exit(0)
