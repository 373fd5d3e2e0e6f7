"""Detached daemons: start one, find it again, stop it. A pid is never trusted alone: it counts only together with the
time its process started, so a number that the kernel has given to somebody else is nobody."""

import asyncio
import errno
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ctl.lab.components import Component
from ctl.lab.layout import Layout

TAIL_LINES = 15

ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    # Two arenas instead of one per thread: a third less memory for a process of many idle threads.
    "MALLOC_ARENA_MAX": "2",
    # The components start no children by fork(); gRPC's handlers for it cost a lock on every event.
    "GRPC_ENABLE_FORK_SUPPORT": "0",
}


@dataclass(frozen=True)
class Process:
    """One run of a program: its pid, and when it started, in clock ticks since boot (field 22 of /proc/PID/stat)."""

    pid: int
    started_ticks: int

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        stat = _stat(self.pid)
        return stat is not None and stat.started_ticks == self.started_ticks and stat.state not in "ZX"

    def uptime_s(self) -> float:
        """Seconds since it started."""
        up = float(Path("/proc/uptime").read_text().split()[0])
        return max(0.0, up - self.started_ticks / os.sysconf("SC_CLK_TCK"))

    def memory_bytes(self) -> int:
        """Proportional set size: private pages, and its share of the pages it has in common with others."""
        try:
            rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        except OSError:
            return 0
        return sum(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Pss:"))


@dataclass(frozen=True)
class _Stat:
    state: str
    started_ticks: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name in parentheses may hold anything
    return _Stat(state=fields[0], started_ticks=int(fields[19]))


def identify(pid: int) -> Process | None:
    """The process that has ``pid`` now."""
    stat = _stat(pid)
    return Process(pid, stat.started_ticks) if stat and stat.state not in "ZX" else None


def start(component: Component, layout: Layout) -> "Started":
    """Start ``component`` in a session of its own, its output appended to its log.

    Raises OSError when the program cannot be started.
    """
    with layout.log(component.name).open("ab") as log:
        child = subprocess.Popen(
            component.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={**_inherited(), **ENVIRONMENT},
            start_new_session=True,
        )
    # Popen returns within execve(2): until the kernel has placed the words, the process is one that find() cannot know.
    while not command_line(child.pid) and child.poll() is None:
        time.sleep(0)
    process = identify(child.pid) or Process(child.pid, 0)
    _write_pid(layout.pid_file(component.name), process)
    return Started(component, process, child)


def _inherited() -> dict[str, str]:
    """The caller's environment without what is about the caller: notably proxies and PYTHONPATH stay."""
    return {key: value for key, value in os.environ.items() if not key.startswith("KNARR_")}


@dataclass(frozen=True)
class Started:
    """A component that this program has started. ``child`` is kept so that its end is seen, and reaped."""

    component: Component
    process: Process
    child: "subprocess.Popen[bytes]"

    async def ended(self) -> str:
        """Wait for it to end, and say how."""
        await wait_for_exit(self.process.pid)
        code = self.child.wait()
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _write_pid(path: Path, process: Process) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(process)) + "\n")
    fresh.replace(path)


def find(component: Component, layout: Layout) -> Process | None:
    """Who runs as ``component``: by its pid file, else by its command line (the pid file may be lost in a crash)."""
    process = recorded(layout.pid_file(component.name))
    if process is not None:
        return process
    for pid in pids():
        if command_line(pid) == list(component.argv) and (process := identify(pid)):
            if layout.run.is_dir():
                _write_pid(layout.pid_file(component.name), process)
            return process
    return None


def recorded(path: Path) -> Process | None:
    """The process of a pid file, if it is still the one that was written down."""
    try:
        process = Process(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return process if process.alive() else None


def pids() -> Iterator[int]:
    """Every process there is."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - names are all it takes


def command_line(pid: int) -> Sequence[str]:
    """The words a process was started with; none when it cannot be seen."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except (OSError, UnicodeDecodeError):
        return []


async def stop(process: Process, grace_s: float) -> bool:
    """SIGTERM, up to ``grace_s`` to drain, then SIGKILL. Returns whether it ended by itself."""
    for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 10.0)):
        if not _signal(process, number):
            return True
        try:
            async with asyncio.timeout(patience_s):
                await wait_for_exit(process.pid)
            return number == signal.SIGTERM
        except TimeoutError:
            continue
    return False


def _signal(process: Process, number: signal.Signals) -> bool:
    """Signal exactly this process; False when it has ended."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if not process.alive():  # asked after the pidfd pins the number
            return False
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


async def wait_for_exit(pid: int) -> None:
    """Return when the process has ended; at once when there is none."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as err:
        if err.errno == errno.ESRCH:
            return
        raise
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def log_size(path: Path) -> int:
    """Where the log ends now; what a component is about to write comes after it."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def log_tail(path: Path, since: int = 0, lines: int = TAIL_LINES) -> list[str]:
    """The last lines of a log, none from before byte ``since``."""
    try:
        with path.open("rb") as file:
            file.seek(since)
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []
