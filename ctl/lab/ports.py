"""Whether a component could listen, and who is in its way."""

import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ctl.lab.components import Component
from ctl.lab.errors import AddressTaken
from ctl.lab.processes import pids


def check_ports(components: Iterable[Component]) -> None:
    """Raises AddressTaken for the first address of ``components`` that cannot be bound."""
    for component in components:
        for address in component.listens:
            if not _can_bind(address):
                raise AddressTaken(component.name, address, holder_of(int(address.rpartition(":")[2])))


def _can_bind(address: str) -> bool:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is no obstacle
        try:
            probe.bind((host, int(port)))
        except OSError:
            return False
    return True


def holder_of(port: int) -> str:
    """``program (pid N)`` of who listens on TCP ``port``; empty when that cannot be seen."""
    inodes = set(_listening_inodes(port))
    for pid in pids() if inodes else ():
        if inodes.intersection(_descriptors(pid)):
            return f"{Path(f'/proc/{pid}/comm').read_text().strip()} (pid {pid})"
    return ""


def _descriptors(pid: int) -> Iterable[str]:
    """What each descriptor of a process is; those that close meanwhile are left out."""
    try:
        links = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return
    for link in links:
        with suppress(OSError):
            yield str(link.readlink())


def _listening_inodes(port: int) -> Iterable[str]:
    """``socket:[inode]`` of every listener on ``port``, as its holder's descriptor links say it."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                yield f"socket:[{fields[9]}]"
