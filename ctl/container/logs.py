"""``logs``: what a container wrote, over all its attempts."""

import asyncio
from collections.abc import Iterator

import click

from ctl.container.group import container_command
from ctl.container.lifecycle import exit_code
from ctl.container.node import Container, Node
from ctl.container.spec import LOG_NAME
from ctl.cri.log_format import Entry, Printer, parse_line, parse_since
from ctl.cri.logs import FOLLOW_S, LogReader
from ctl.errors import fail
from ctl.terminal import write_all


@container_command("logs")
@click.argument("name", metavar="CONTAINER")
@click.option("-f", "--follow", is_flag=True, help="Go on until the container stops.")
@click.option("-n", "--tail", default="all", metavar="N", help="Only the last N lines.")
@click.option("--since", default="", metavar="TIME", help="Since a time (2026-01-31T12:00:00Z) or so long ago (42m).")
@click.option("--until", default="", metavar="TIME", help="Up to such a time.")
@click.option("-t", "--timestamps", is_flag=True, help="Show timestamps.")
@click.option("--details", is_flag=True, help="Accepted for docker's sake; there are no details.")
async def logs(
    node: Node, name: str, follow: bool, tail: str, since: str, until: str, timestamps: bool, details: bool
) -> None:
    """Print what a container wrote to its stdout and stderr, to ours."""
    if tail != "all" and not tail.lstrip("-").isdigit():
        fail(f'invalid value for "--tail": {tail}: a number or all is expected')
    container = await node.find(name)
    path = node.folder(container.spec.id) / LOG_NAME
    if not path.exists():  # never started
        return
    reader = LogReader(path)
    reader.seek_tail(-1 if tail == "all" else int(tail))
    printer = Printer(parse_since(since), timestamps=timestamps)
    end = parse_since(until) if until else 0.0
    _print(printer, reader, end)
    if follow and container.is_running:
        await _follow(node, container, printer, reader, end)


async def _follow(node: Node, container: Container, printer: Printer, reader: LogReader, end: float) -> None:
    ended = asyncio.create_task(exit_code(node, container), name="end")
    try:
        while not (await asyncio.wait([ended], timeout=FOLLOW_S))[0]:
            _print(printer, reader, end)
        _print(printer, reader, end)
    finally:
        ended.cancel()


def _print(printer: Printer, reader: LogReader, end: float) -> None:
    for stream, text in printer.render(_until(map(parse_line, reader.lines()), end)):
        write_all(1 if stream == "stdout" else 2, text)


def _until(entries: Iterator[Entry], end: float) -> Iterator[Entry]:
    return (entry for entry in entries if not end or entry.seconds < end)
