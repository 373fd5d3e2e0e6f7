"""What a cluster leaves in the kernel: found, and removed where no owner can any more.

The runtime removes its own (``python -m cri_runtime --teardown``). The proxy's routes have no owner left once it was
killed with SIGKILL; pods' cgroups are the kubelet's, which is stopped before the pods are. Both are taken away here.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ctl.lab.layout import Layout
from ctl.lab.settings import Settings

LOCAL_TABLE = 255


def remove_routes(settings: Settings) -> None:
    """Take away the local routes of the service ranges."""
    with IPRoute() as ip:
        for cidr, route in _service_routes(ip, settings):
            with suppress(NetlinkError):  # gone meanwhile; leftovers() sees if not
                ip.route("del", dst=cidr, **{key: route[key] for key in ("table", "type", "scope", "proto")})


def _service_routes(ip: IPRoute, settings: Settings) -> list[tuple[str, Any]]:
    ours = {settings.service_cidr, settings.load_balancer_cidr}
    found = ((f"{route.get_attr('RTA_DST')}/{route['dst_len']}", route) for route in ip.get_routes(table=LOCAL_TABLE))
    return [(cidr, route) for cidr, route in found if cidr in ours]


POD_CGROUPS = "kubepods"


def remove_pod_cgroups() -> None:
    """Remove pods' cgroups that nobody uses: the kernel refuses to remove one with a process or a child in it."""
    for root in _hierarchies():
        for path, _, _ in os.walk(root / POD_CGROUPS, topdown=False):
            with suppress(OSError):
                Path(path).rmdir()


def _hierarchies() -> list[Path]:
    """Mount points of cgroup hierarchies, v1 and v2."""
    fields = map(str.split, Path("/proc/self/mounts").read_text().splitlines())
    return [Path(each[1]) for each in fields if each[2] in ("cgroup", "cgroup2")]


def leftovers(layout: Layout, settings: Settings) -> Iterator[str]:
    """Everything of this cluster that is still there, one line each."""
    yield from (f"mount {point}" for point in mounts_below(layout))
    with IPRoute() as ip:
        yield from (f"route local {cidr} dev lo" for cidr, _ in _service_routes(ip, settings))
        try:
            if ip.link_lookup(ifname=settings.bridge):
                yield f"bridge {settings.bridge}"
        except NetlinkError:
            pass


def mounts_below(layout: Layout) -> list[Path]:
    """Mount points inside the cluster's directories, deepest first."""
    points = [Path(_unescape(line.split()[4])) for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    roots = (layout.state_dir.resolve(), layout.run.resolve())
    ours = [point for point in points if any(point.is_relative_to(root) and point != root for root in roots)]
    return sorted(ours, key=lambda point: len(point.parts), reverse=True)


def _unescape(text: str) -> str:
    """mountinfo writes blank, tab, newline and backslash as three octal digits."""
    raw = os.fsencode(text)
    return os.fsdecode(raw.decode("unicode_escape").encode("latin-1")) if b"\\" in raw else text
