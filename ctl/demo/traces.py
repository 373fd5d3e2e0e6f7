"""What a cluster leaves on a machine: everything of each sort, listed, to be compared before and after.

A machine is never quite still: sessions come and go, timers run. So what others may touch at any time (processes,
cgroups, files) counts only where it shows whose it is; mounts, links, routes, packet filter tables and network
namespaces count all, unless the machine is said to be shared.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute

from ctl.lab.processes import pids

Thing = tuple[str, str]
"""Sort and name."""

SORTS = ("process", "mount", "network namespace", "link", "route", "nftables table", "cgroup", "file")
STRICT = ("mount", "network namespace", "link", "route", "nftables table")
FILE_ROOTS = ("/run", "/tmp", "/var/lib", "/var/run", "/var/log", "/var/tmp", "/var/cache", "/etc", "/dev", "/opt")
EPHEMERAL_ROOTS = ("/run/", "/tmp/", "/dev/", "/var/tmp/")
"""Where on a machine of one's own every new file of root's counts."""


@dataclass(frozen=True)
class Traces:
    """Everything there was at one moment."""

    things: frozenset[Thing]

    def counts(self) -> dict[str, int]:
        """How many of each sort."""
        return {sort: sum(thing[0] == sort for thing in self.things) for sort in SORTS}


def take(state_dir: Path) -> Traces:
    """List everything, except what lies inside ``state_dir``, which is to stay."""
    found: set[Thing] = set()
    for sort, names in (
        ("process", _processes()),
        ("mount", _mounts()),
        ("network namespace", _network_namespaces()),
        ("link", _links()),
        ("route", _routes()),
        ("nftables table", _nftables()),
        ("cgroup", _cgroups()),
        ("file", _files(state_dir)),
    ):
        found.update((sort, name) for name in names)
    return Traces(frozenset(found))


def left_behind(before: Traces, after: Traces, marks: Iterable[str], shared: bool) -> tuple[list[Thing], list[Thing]]:
    """What is there now and was not: ours, and others'. ``marks``: texts that show that a thing is the cluster's."""
    new = sorted(after.things - before.things)
    pattern = re.compile("|".join(map(re.escape, marks)))
    ours = [thing for thing in new if _is_ours(thing, pattern, shared)]
    return ours, [thing for thing in new if thing not in ours]


def _is_ours(thing: Thing, marks: re.Pattern[str], shared: bool) -> bool:
    sort, name = thing
    if marks.search(name):
        return True
    if shared:
        return False
    return sort in STRICT or (sort == "file" and name.startswith(EPHEMERAL_ROOTS) and _is_roots(name))


def _is_roots(path: str) -> bool:
    """Whether root owns a file: the cluster runs as root, so another user's files are not its."""
    try:
        return Path(path).lstat().st_uid == 0
    except OSError:
        return False


def _read(path: str) -> str:
    try:
        return Path(path).read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _processes() -> Iterator[str]:
    """Every program with its command line, where it was told to live (environment), and its cgroup."""
    for pid in pids():
        command = _read(f"/proc/{pid}/cmdline")
        if command:  # kernel threads have none
            stat = _read(f"/proc/{pid}/stat")
            started = stat[stat.rindex(")") + 2 :].split()[19] if ")" in stat else "?"
            home = " ".join(re.findall(r"KNARR_STATE_DIR=\S+", _read(f"/proc/{pid}/environ")))
            yield f"{pid} (since tick {started}) {command} {home} {' '.join(_read(f'/proc/{pid}/cgroup').split())}"


def _mounts() -> Iterator[str]:
    for line in _read("/proc/self/mountinfo").splitlines():
        fields = line.split()
        yield f"{fields[4]} ({fields[fields.index('-') + 1]}, mount {fields[0]})"


def _network_namespaces() -> set[str]:
    found = set()
    for pid in pids():
        try:
            found.add(str(Path(f"/proc/{pid}/ns/net").readlink()))
        except OSError:
            continue
    return found


def _links() -> set[str]:
    with IPRoute() as ip:
        return {f"{link.get_attr('IFLA_IFNAME')} ({link['index']})" for link in ip.get_links()}


def _routes() -> set[str]:
    """Every table's, as ip(8) would name them: the kernel's routes of each address are among them."""
    with IPRoute() as ip:
        return {
            f"{route.get_attr('RTA_DST') or 'default'}/{route['dst_len']} table {route.get_attr('RTA_TABLE')} "
            f"type {route['type']} oif {route.get_attr('RTA_OIF')}"
            for route in ip.get_routes()
        }


def _nftables() -> set[str]:
    try:
        listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return set()
    return set(listed.split("\n")) - {""}


def _cgroups() -> Iterator[str]:
    return (path for path, _, _ in os.walk("/sys/fs/cgroup"))


PROGRAM = (Path(__file__).parents[2], Path(sys.prefix))
"""Where this program is installed: what Python compiles of it is not the cluster's."""


def _files(state_dir: Path) -> Iterator[str]:
    skipped = {state_dir, *PROGRAM}
    for root in FILE_ROOTS:
        for path, directories, names in os.walk(root):
            directories[:] = [name for name in directories if Path(path, name) not in skipped]
            yield from (f"{path}/{name}" for name in (*directories, *names))
