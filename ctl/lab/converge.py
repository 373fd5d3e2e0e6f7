"""Making the components run that should: start what is missing, wait until it is healthy, undo on failure."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from ctl.lab import health, processes
from ctl.lab.components import Component
from ctl.lab.errors import ComponentFailed, LabError, NotWritable
from ctl.lab.layout import Layout
from ctl.lab.ports import check_ports
from ctl.lab.settings import Settings, write_settings

HEALTH_DEADLINE_S = 60.0
STOP_GRACE_S = 5.0
SOCKET_PATH_MAX = 107
"""Bytes of a unix socket's path, sockaddr_un less its terminating zero."""

Say = Callable[[str], None]
Then = Callable[[Sequence[str]], Awaitable[None]]
"""What else has to come true; gets the names of the components that were started."""


def prepare(layout: Layout, settings: Settings) -> None:
    """Make the directories and files that components are pointed at. Raises NotWritable, LabError."""
    if len(os.fsencode(layout.runtime_socket)) > SOCKET_PATH_MAX:
        raise LabError(f"the path {layout.runtime_socket} is too long for a socket: choose a shorter --state-dir")
    try:
        for directory in (layout.state_dir, layout.run, layout.logs):
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_settings(layout, settings)
        if not layout.registries.exists():
            layout.registries.write_text(REGISTRIES)
    except OSError as err:
        raise NotWritable(layout.state_dir, err) from err


REGISTRIES = """# How the node runtime reaches registries: one table per registry. Loopback ones need none.
#
# ["registry.k8s.io"]
# mirrors = ["http://127.0.0.1:5000"]
"""


def missing(layout: Layout, wanted: Sequence[Component]) -> list[Component]:
    """The components of ``wanted`` that do not run. Raises LabError when one runs with other flags than wanted."""
    absent = []
    for component in wanted:
        process = processes.find(component, layout)
        if process is None:
            absent.append(component)
        elif changed := _changed(component, processes.command_line(process.pid)):
            raise LabError(
                f"{component.name} runs with other settings ({', '.join(changed)} would change): "
                "take the cluster down first ('ctl down')"
            )
    return absent


def _changed(component: Component, running: Sequence[str]) -> list[str]:
    """The flags in which a running component differs from what is wanted; its interpreter may be another one."""
    return [flag for flag in component.argv[1:] if flag not in running] if running else []


async def converge(layout: Layout, wanted: Sequence[Component], say: Say, then: Then | None = None) -> list[str]:
    """Start what does not run of ``wanted``, each when what it needs is healthy; wait until all are, and for ``then``.

    Returns the names it started. When one fails, or ``then`` does, everything this call started is stopped again.
    Raises AddressTaken before anything is started, ComponentFailed (in a group) after, and what ``then`` raises.
    """
    absent = missing(layout, wanted)
    check_ports(absent)
    ready = {component.name: asyncio.Event() for component in wanted}
    started: list[processes.Started] = []
    try:
        async with asyncio.TaskGroup() as tasks:
            for component in wanted:
                tasks.create_task(_bring_up(component, component in absent, layout, ready, started, say))
        names = [each.component.name for each in started]
        if then is not None:
            await then(names)
    except BaseException:
        await _undo(layout, started)
        raise
    return names


async def _bring_up(
    component: Component,
    absent: bool,
    layout: Layout,
    ready: dict[str, asyncio.Event],
    started: list[processes.Started],
    say: Say,
) -> None:
    for name in component.needs:
        if name in ready:
            await ready[name].wait()
    log = layout.log(component.name)
    since = processes.log_size(log)
    if absent:
        started.append(mine := processes.start(component, layout))
        await _healthy_or_ended(mine, layout, log, since)
        say(f"{component.name} is up (pid {mine.process.pid})")
    else:
        await _healthy(component, layout, log, since)
    ready[component.name].set()


async def _healthy_or_ended(mine: processes.Started, layout: Layout, log: Path, since: int) -> None:
    """Raises ComponentFailed as soon as the process ends, or after the deadline."""
    healthy = asyncio.create_task(_healthy(mine.component, layout, log, since))
    ended = asyncio.create_task(mine.ended())
    try:
        await asyncio.wait((healthy, ended), return_when=asyncio.FIRST_COMPLETED)
        if healthy.done():
            return healthy.result()
        raise ComponentFailed(mine.component.name, ended.result(), log, processes.log_tail(log, since))
    finally:
        healthy.cancel()
        ended.cancel()


async def _healthy(component: Component, layout: Layout, log: Path, since: int) -> None:
    try:
        async with asyncio.timeout(HEALTH_DEADLINE_S):
            await health.wait_until_healthy(component, layout)
    except TimeoutError:
        what = f"was not healthy after {HEALTH_DEADLINE_S:.0f} s"
        raise ComponentFailed(component.name, what, log, processes.log_tail(log, since)) from None


async def _undo(layout: Layout, started: Sequence[processes.Started]) -> None:
    """Last started, first stopped."""
    for each in reversed(started):
        await processes.stop(each.process, STOP_GRACE_S)
        layout.pid_file(each.component.name).unlink(missing_ok=True)
