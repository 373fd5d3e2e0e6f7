"""What a cluster leaves on a machine: everything of each sort, listed, to be compared before and after.

A machine is never quite still: sessions come and go, timers run, others have containers too. So a new thing counts as
left behind when it bears one of the cluster's marks (``Marks``): its directories, its bridge and networks, the ids of
its sandboxes and pods. A network namespace bears none (the kernel gives its number to the next one), but what keeps it
alive does: a process or a mount. In strict mode every new thing counts, whoever made it.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from pyroute2 import IPRoute

from ctl.lab.layout import Layout
from ctl.lab.processes import pids
from ctl.lab.settings import Settings
from protos.cri import runtime_pb2 as cri
from protos.cri import runtime_pb2_grpc

Thing = tuple[str, str]
"""Sort and name."""

SORTS = ("process", "mount", "network namespace", "link", "route", "nftables table", "cgroup", "file")
FILE_ROOTS = ("/run", "/tmp", "/var/lib", "/var/run", "/var/log", "/var/tmp", "/var/cache", "/etc", "/dev", "/opt")
PROGRAM = (Path(__file__).parents[2], Path(sys.prefix))
"""Where this program is installed: what Python compiles of it is not the cluster's."""

ID_SHOWN = 11
"""Characters of a sandbox's id in the names of its device and its supervisor."""


@dataclass(frozen=True)
class Traces:
    """Everything there was at one moment."""

    things: frozenset[Thing]

    def counts(self) -> dict[str, int]:
        """How many of each sort."""
        return {sort: sum(thing[0] == sort for thing in self.things) for sort in SORTS}


@dataclass
class Marks:
    """Texts that show that a thing is the cluster's. It learns while pods come and go."""

    texts: set[str] = field(default_factory=set)

    def of(self, layout: Layout, settings: Settings) -> None:
        """What is the cluster's from the start: directories and networks."""
        self.texts |= {str(layout.state_dir), str(layout.run), f"{settings.bridge} ", f"knarr_{settings.bridge}"}
        self.texts |= {settings.pod_cidr, settings.service_cidr, settings.load_balancer_cidr}

    def learn(self, endpoint: str) -> None:
        """The ids of the sandboxes that the runtime has now, and of their pods."""
        with grpc.insecure_channel(endpoint, [("grpc.default_authority", "localhost")]) as channel:
            stub = runtime_pb2_grpc.RuntimeServiceStub(channel)
            found = stub.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=10).items
        for sandbox in found:
            self.texts |= {sandbox.id[:ID_SHOWN], sandbox.metadata.uid}

    def pattern(self) -> re.Pattern[str]:
        """Matches a name that bears a mark."""
        return re.compile("|".join(map(re.escape, sorted(self.texts))))


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


def left_behind(before: Traces, after: Traces, marks: Marks, strict: bool) -> tuple[list[Thing], list[Thing]]:
    """What is there now and was not: what counts as left behind, and what others did meanwhile."""
    new = sorted(after.things - before.things)
    pattern = marks.pattern()
    ours = [thing for thing in new if strict or pattern.search(thing[1])]
    return ours, [thing for thing in new if thing not in ours]


def _read(path: str) -> str:
    try:
        return " ".join(Path(path).read_bytes().replace(b"\0", b" ").decode(errors="replace").split())
    except OSError:
        return ""


def _processes() -> Iterator[str]:
    return filter(None, map(_process, pids()))


def _process(pid: int) -> str:
    """A program: when it started, its name, command line, state directory if it was given one, and cgroups."""
    command = _read(f"/proc/{pid}/cmdline")
    if not command:  # kernel threads have none
        return ""
    stat = _read(f"/proc/{pid}/stat")
    started = stat[stat.rindex(")") + 2 :].split()[19] if ")" in stat else "?"
    home = " ".join(re.findall(r"KNARR_STATE_DIR=\S+", _read(f"/proc/{pid}/environ")))
    name = _read(f"/proc/{pid}/comm")
    return f"{pid} (since tick {started}) {name}: {command} {home} {_read(f'/proc/{pid}/cgroup')}"


def _mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        yield f"{fields[4]} ({fields[fields.index('-') + 1]}, mount {fields[0]})"


def _network_namespaces() -> set[str]:
    return {_namespace(pid) for pid in pids()} - {""}


def _namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    except OSError:
        return ""


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


def _files(state_dir: Path) -> Iterator[str]:
    skipped = {state_dir, *PROGRAM}
    for root in FILE_ROOTS:
        for path, directories, names in os.walk(root):
            directories[:] = [name for name in directories if Path(path, name) not in skipped]
            yield from (f"{path}/{name}" for name in (*directories, *names))


def summary(things: Iterable[Thing], most: int) -> list[str]:
    """A line for each of the first ``most``, and how many more."""
    everything = list(things)
    lines = [f"{sort} {name[:120]}" for sort, name in everything[:most]]
    return lines + ([f"and {len(everything) - most} more"] if len(everything) > most else [])
