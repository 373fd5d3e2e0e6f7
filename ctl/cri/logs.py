"""``logs``: a container's log file, read where the runtime says it is."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ctl.cri.client import Cri, cri_command
from ctl.cri.containers import status_of
from ctl.cri.group import cri
from ctl.cri.log_format import Printer, parse_line, parse_since, tail_start
from ctl.errors import CtlError
from ctl.terminal import write_all

FOLLOW_S = 0.2
"""How often a followed file is looked at: Python has no file notification."""


@cri_command(cri, "logs")
@click.argument("container_id", metavar="CONTAINER-ID")
@click.option("-f", "--follow", is_flag=True, help="Follow log output.")
@click.option("-p", "--previous", is_flag=True, help="Of the previous attempt, if it left a log.")
@click.option("-r", "--reopen", is_flag=True, help="Make the runtime reopen the log file first.")
@click.option("--tail", type=int, default=-1, metavar="N", help="Only the last N lines; -1 is all.")
@click.option("--limit-bytes", type=int, default=-1, metavar="N", help="At most N bytes; -1 is no limit.")
@click.option("--since", default="", metavar="TIME", help="Since a time (2026-01-31T12:00:00Z) or so long ago (42m).")
@click.option("-t", "--timestamps", is_flag=True, help="Show timestamps.")
@click.option("-s", "--stream", type=click.Choice(["stdout", "stderr"]), help="Only this stream.")
async def logs(
    cri: Cri,
    container_id: str,
    follow: bool,
    previous: bool,
    reopen: bool,
    tail: int,
    limit_bytes: int,
    since: str,
    timestamps: bool,
    stream: str | None,
) -> None:
    """Fetch the logs of a container."""
    if reopen:
        await _reopen(cri, container_id)
    printer = Printer(parse_since(since), stream or "", timestamps, limit_bytes)
    path = _log_path((await status_of(cri, container_id)).status, previous)
    reader = LogReader(path)
    reader.seek_tail(tail)
    _print(printer, reader)
    while follow and printer.room and await _runs(cri, container_id):
        _print(printer, reader)
        await asyncio.sleep(FOLLOW_S)
    _print(printer, reader)


async def _reopen(cri: Cri, container_id: str) -> None:
    from protos.cri import runtime_pb2 as pb

    rpc = cri.runtime.ReopenContainerLog(pb.ReopenContainerLogRequest(container_id=container_id))
    await cri.call(rpc, "reopening container logs")


async def _runs(cri: Cri, container_id: str) -> bool:
    from protos.cri import runtime_pb2 as pb

    return (await status_of(cri, container_id)).status.state == pb.CONTAINER_RUNNING


def _log_path(status: Any, previous: bool) -> Path:
    if not status.log_path:
        raise CtlError(f"container {status.id[:13]} has no log: its config set no log_path")
    path = Path(status.log_path)
    if not previous:
        return path
    if status.metadata.attempt == 0:
        raise CtlError(f"previous terminated container {status.metadata.name} not found")
    return path.with_name(f"{status.metadata.attempt - 1}{path.suffix}")


def _print(printer: Printer, reader: "LogReader") -> None:
    for stream, text in printer.render(map(parse_line, reader.lines())):
        write_all(1 if stream == "stdout" else 2, text)


class LogReader:
    """Complete lines of a log file as they come, over its rotations."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("rb")
        except FileNotFoundError:
            raise CtlError(f"{path} does not exist: the container has not started, or its log was removed") from None

    def seek_tail(self, lines: int) -> None:
        """Go to the last ``lines`` lines; negative is all."""
        if lines >= 0:
            self._file.seek(tail_start(self._file.read(), lines))

    def lines(self) -> Iterator[bytes]:
        """The complete lines since the last time."""
        yield from self._complete()
        if self._rotated():
            yield from self._complete()

    def _complete(self) -> Iterator[bytes]:
        while line := self._file.readline():
            if not line.endswith(b"\n"):  # the runtime is still writing it
                self._file.seek(-len(line), os.SEEK_CUR)
                return
            yield line

    def _rotated(self) -> bool:
        """Whether the path leads to another file by now; then that is read from here on."""
        try:
            if os.path.sameopenfile(self._file.fileno(), (fresh := self._path.open("rb")).fileno()):
                fresh.close()
                return False
        except FileNotFoundError:
            return False
        self._file.close()
        self._file = fresh
        return True
