"""Starting and stopping what is measured: processes, a network namespace, free ports, folders."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.report import Skip

PYTHON = sys.executable
READY_S = 20.0


def need(*programs: str) -> None:
    """Raise Skip unless all ``programs`` are installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise Skip(f"{', '.join(missing)} not installed")


def need_root() -> None:
    """Raise Skip unless we are root."""
    if os.geteuid() != 0:
        raise Skip("needs root")


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder with a short path, for sockets."""
    with tempfile.TemporaryDirectory(prefix="knarr-bench-", ignore_cleanup_errors=True) as path:
        yield Path(path)


@contextlib.contextmanager
def process(command: Sequence[str], log: Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``command`` for the length of the block, output to ``log``; SIGTERM ends it, SIGKILL if that does not."""
    with log.open("ab") as out:
        child = subprocess.Popen(
            command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})}
        )
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextlib.contextmanager
def network_namespace() -> Iterator[list[str]]:
    """A fresh network namespace with lo up; yields the words to put before a command to run it there."""
    holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    try:
        ours, theirs = Path("/proc/self/ns/net"), Path(f"/proc/{holder.pid}/ns/net")
        wait_until(lambda: theirs.readlink() != ours.readlink(), "the network namespace")
        inside = ["nsenter", f"--net={theirs}", "--"]
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        yield inside
    finally:
        holder.kill()
        holder.wait()


def wait_until(
    condition: object, what: str, child: subprocess.Popen[bytes] | None = None, log: Path | None = None
) -> None:
    """Wait for a callable to be true. Raises Skip when it is not in time, or ``child`` died."""
    deadline = time.monotonic() + READY_S
    while True:
        with contextlib.suppress(OSError):
            if condition():  # type: ignore[operator]
                return
        died = child is not None and child.poll() is not None
        if died or time.monotonic() > deadline:
            tail = log.read_text(errors="replace").strip().splitlines()[-1:] if log is not None and log.exists() else []
            raise Skip(f"{what} did not come up" + (f": {tail[0]}" if tail else ""))
        time.sleep(0.02)


def answers(address: tuple[str, int]) -> bool:
    """Whether something accepts connections there."""
    with contextlib.closing(socket.create_connection(address, timeout=1)):
        return True


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody holds now."""
    with contextlib.closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def naming(path: Path) -> dict[int, str]:
    """The commands of the processes that name ``path`` in their arguments, and of all their descendants, by pid. Not
    ourselves, nor what we run for a moment (``ctl``)."""
    commands: dict[int, str] = {}
    parents: dict[int, int] = {}
    for each in Path("/proc").iterdir():
        if not each.name.isdigit() or int(each.name) == os.getpid():
            continue
        try:
            commands[int(each.name)] = (each / "cmdline").read_text().replace("\0", " ").strip()
            parents[int(each.name)] = int((each / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
    found = {pid for pid, command in commands.items() if str(path) in command and " -m ctl " not in command}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: commands[pid] for pid in sorted(found)}
