"""``stats`` and ``top``: what containers use, and their processes."""

import asyncio
import json
import os
import pwd
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import click

from ctl.container import template
from ctl.container.group import DaemonError, container_command
from ctl.container.node import Container, Node, choose
from ctl.container.state import table
from ctl.cri.show import human_size
from ctl.errors import fail

CLEAR_SCREEN = "\033[2J\033[H"
SAMPLE_S = 0.5
COLUMNS = {
    "ID": "CONTAINER ID",
    "Name": "NAME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
}
UNKNOWN_IO = "-- / --"
"""CRI does not count block I/O."""
BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@container_command("stats")
@click.argument("names", nargs=-1, metavar="[CONTAINER...]")
@click.option("-a", "--all", "every", is_flag=True, help="Those that do not run, too.")
@click.option("--no-stream", is_flag=True, help="Show once, and end.")
@click.option("--no-trunc", is_flag=True, help="Show whole ids.")
@click.option("--format", "form", default="", metavar="TEMPLATE", help="json, or a Go template.")
async def stats(node: Node, names: tuple[str, ...], every: bool, no_stream: bool, no_trunc: bool, form: str) -> None:
    """Show what containers use, again and again."""
    while True:
        before = await _sample(node, names, every)
        await asyncio.sleep(SAMPLE_S)
        now = await _sample(node, names, every)
        rows = [usage_row(c, before.get(c.spec.id, (c, None))[1], one, no_trunc) for c, one in now.values()]
        click.echo(("" if no_stream else CLEAR_SCREEN) + shown(rows, form), nl=False)
        if no_stream:
            return


def shown(rows: list[dict[str, str]], form: str) -> str:
    """Pure: the table, JSON lines, or a template's text."""
    if form == "json":
        return "".join(json.dumps(row) + "\n" for row in rows)
    if form and not form.startswith("table"):
        return "".join(template.render(form, row) + "\n" for row in rows)
    return table([list(COLUMNS.values()), *([row[name] for name in COLUMNS] for row in rows)])


async def _sample(node: Node, names: tuple[str, ...], every: bool) -> dict[str, tuple[Container, Any]]:
    """Pod stats by id; None for what does not run."""
    from protos.cri import runtime_pb2 as pb

    containers = await node.containers()
    chosen = [choose(containers, name) for name in names] or [c for c in containers if every or c.is_running]
    answer = await node.cri.ListPodSandboxStats(pb.ListPodSandboxStatsRequest())
    found = {one.attributes.id: one for one in answer.stats}
    return {c.spec.id: (c, found.get(c.sandbox_id) if c.is_running else None) for c in chosen}


def usage_row(container: Container, before: Any, now: Any, full: bool) -> dict[str, str]:
    """Pure, but for the machine's memory: one row under docker's names."""
    spec = container.spec
    row = dict.fromkeys(COLUMNS, "--")
    row |= {"ID": spec.id if full else spec.id[:12], "Name": spec.name, "BlockIO": UNKNOWN_IO, "NetIO": UNKNOWN_IO}
    row["Container"] = row["ID"]
    if now is None:
        return row | {"MemUsage": UNKNOWN_IO}
    used = now.linux.memory.working_set_bytes.value
    limit = spec.memory_bytes or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    net = now.linux.network.default_interface
    return row | {
        "CPUPerc": f"{cpu_percent(before, now):.2f}%",
        "MemUsage": f"{binary_size(used)} / {binary_size(limit)}",
        "MemPerc": f"{100 * used / limit:.2f}%",
        "NetIO": f"{human_size(net.rx_bytes.value, 3)} / {human_size(net.tx_bytes.value, 3)}",
        "PIDs": str(now.linux.process.process_count.value),
    }


def cpu_percent(before: Any, now: Any) -> float:
    """Pure: of one CPU, between two samples."""
    if before is None:
        return 0.0
    old, new = before.linux.cpu, now.linux.cpu
    passed = new.timestamp - old.timestamp
    return (
        100.0 * (new.usage_core_nano_seconds.value - old.usage_core_nano_seconds.value) / passed if passed > 0 else 0.0
    )


def binary_size(size: float) -> str:
    """Pure: ``1.944GiB``, in four digits."""
    unit = 0
    while size >= 1024 and unit < len(BINARY_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.4g}{BINARY_UNITS[unit]}"


@container_command("top", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name", metavar="CONTAINER")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[PS OPTIONS]")
async def top(node: Node, name: str, options: tuple[str, ...]) -> None:
    """Show a container's processes, with the host's process ids; with options as the host's ps shows them."""
    container = await node.find(name)
    if not container.is_running:
        raise DaemonError(f"container {container.spec.id} is not running")
    _, info = await node.status(container)
    pids = sorted(processes_of(int(info["pid"]), str(info.get("cgroup", ""))))
    if options:
        click.echo(_host_ps(options, set(map(str, pids))), nl=False)
        return
    rows = [row for pid in pids if (row := process_row(pid))]
    click.echo(table([["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"], *rows]), nl=False)


def processes_of(first: int, cgroup: str) -> list[int]:
    """The processes in the cgroup that ``first`` was put into; those that share its processes alone are not its."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                lines = (entry / "cgroup").read_text().splitlines()
            except OSError:
                continue
            paths = [line.split(":", 2)[2] for line in lines]
            if int(entry.name) == first or (cgroup and any(p == cgroup or p.startswith(f"{cgroup}/") for p in paths)):
                found.append(int(entry.name))
    return found


def process_row(pid: int) -> list[str]:
    """As ``ps -ef``; nothing of a process that is gone. Source: proc(5)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        uid = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return []
    ticks = os.sysconf("SC_CLK_TCK")
    used = (int(fields[11]) + int(fields[12])) // ticks
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / ticks
    began = time.localtime(time.time() - age)
    minutes, seconds = divmod(used, 60)
    return [
        _user(uid),
        str(pid),
        fields[1],
        str(int(100 * used / age) if age > 0 else 0),
        time.strftime("%H:%M" if age < 86400 else "%b%d", began),
        "?" if fields[4] == "0" else f"pts/{int(fields[4]) & 0xFF}",
        f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}",
        words or f"[{name}]",
    ]


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _host_ps(options: tuple[str, ...], pids: set[str]) -> str:
    """The host's ps, cut down to ``pids``. Raises CtlError when there is none, or its output has no PID column."""
    if shutil.which("ps") is None:
        fail("options for top need 'ps' on the host (Debian's package procps)")
    done = subprocess.run(["ps", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DaemonError(f"ps: {done.stderr.strip()}")
    header, *lines = done.stdout.splitlines()
    if "PID" not in header.split():
        raise DaemonError("Couldn't find PID field in ps output")
    column = header.split().index("PID")
    return "".join(f"{line}\n" for line in [header, *(ln for ln in lines if ln.split()[column] in pids)])
