"""How a container is, in docker's words. Pure, but for the time."""

import time
from typing import Any

from ctl.container.lifecycle import shown_code
from ctl.container.node import START_ERROR, Container
from ctl.container.spec import PROTOCOLS, Port, Spec
from ctl.cri.show import human_duration

MIN_WIDTH, GAP = 10, 3


def table(rows: list[list[str]]) -> str:
    """Columns as docker's: at least ten wide, three apart, the last one free."""
    widths = [max(MIN_WIDTH, GAP + max(len(row[i]) for row in rows)) for i in range(len(rows[0]) - 1)]
    return "".join("".join([*(c.ljust(w) for c, w in zip(r, widths, strict=False)), r[-1]]) + "\n" for r in rows)


def state_of(container: Container, status: Any) -> str:
    """created, running or exited; docker calls created what could not be started."""
    if container.is_running:
        return "running"
    if not container.is_exited or (status is not None and status.reason == START_ERROR):
        return "created"
    return "exited"


def status_text(state: str, status: Any) -> str:
    """``Up 5 minutes``, ``Exited (0) 2 hours ago``, ``Created``."""
    if state == "running":
        return f"Up {human_duration(since(status.started_at))}"
    if state == "exited":
        return f"Exited ({shown_code(status)}) {human_duration(since(status.finished_at))} ago"
    return "Created"


def since(moment_ns: int) -> float:
    """Seconds."""
    return max(time.time() - moment_ns / 1e9, 0)


def ports_text(spec: Spec, running: bool) -> str:
    """``0.0.0.0:8080->8080/tcp, 9000/tcp``; nothing of one that does not run."""
    if not running or spec.is_host_network:
        return ""
    published = {port.inside for port in spec.ports}
    rest = [inside for inside in spec.exposed if inside not in published]
    order = sorted(spec.ports, key=lambda port: (PROTOCOLS.index(port.protocol), port.container_port))
    return ", ".join([*map(published_text, order), *rest])


def published_text(port: Port) -> str:
    """``0.0.0.0:8080->80/tcp``."""
    return f"{port.host_ip or '0.0.0.0'}:{port.host_port}->{port.inside}"
