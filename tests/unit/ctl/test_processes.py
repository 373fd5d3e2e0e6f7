"""Daemons are started, found again, and stopped by what they are, never by a number alone."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ctl.lab import processes
from ctl.lab.components import Component, Probe
from ctl.lab.converge import converge, missing, prepare
from ctl.lab.errors import AddressTaken, ComponentFailed, LabError
from ctl.lab.layout import Layout
from ctl.lab.settings import Settings

PYTHON = sys.executable
SERVE = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    """A prepared state directory; what was started in it is killed afterwards."""
    made = Layout(tmp_path)
    prepare(made, Settings("node", "127.0.0.1"))
    yield made
    for path in made.run.glob("*.pid"):
        if process := processes.recorded(path):
            os.kill(process.pid, signal.SIGKILL)


def sleeper(name: str = "sleeper") -> Component:
    return Component(name, [PYTHON, "-c", "import time; time.sleep(60)", name], "127.0.0.1:1", Probe.HTTP)


def server(name: str, port: int, needs: tuple[str, ...] = ()) -> Component:
    address = f"127.0.0.1:{port}"
    return Component(name, [PYTHON, "-c", SERVE, str(port), name], address, Probe.HTTP, [address], needs)


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def free_port() -> int:
    return unused_port()


@pytest.fixture
def other_port(free_port: int) -> int:
    return next(port for port in iter(unused_port, 0) if port != free_port)


def test_a_started_component_is_found_by_its_pid_file(layout: Layout) -> None:
    started = processes.start(sleeper(), layout)
    assert processes.find(sleeper(), layout) == started.process
    assert os.getsid(started.process.pid) == started.process.pid


def test_a_lost_pid_file_is_made_up_for_by_the_command_line(layout: Layout) -> None:
    started = processes.start(sleeper(), layout)
    layout.pid_file("sleeper").unlink()
    assert processes.find(sleeper(), layout) == started.process
    assert processes.recorded(layout.pid_file("sleeper")) == started.process


def test_a_started_process_can_be_known_by_its_words_at_once(layout: Layout) -> None:
    for number in range(20):
        started = processes.start(sleeper(f"s{number}"), layout)
        assert processes.command_line(started.process.pid), f"start {number} returned within execve"


def test_a_pid_that_belongs_to_somebody_else_now_is_nobody(layout: Layout) -> None:
    path = layout.pid_file("other")
    path.write_text(json.dumps({"pid": os.getpid(), "started_ticks": 1}))
    assert processes.recorded(path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}'])
def test_a_damaged_pid_file_is_none(layout: Layout, text: str) -> None:
    layout.pid_file("other").write_text(text)
    assert processes.recorded(layout.pid_file("other")) is None


async def test_stop_lets_a_process_drain(layout: Layout) -> None:
    started = processes.start(sleeper(), layout)
    assert await processes.stop(started.process, 5.0)
    assert await started.ended() == "was killed by signal 15"


async def test_stop_kills_what_does_not_listen(layout: Layout) -> None:
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    started = processes.start(Component("deaf", [PYTHON, "-c", script], "", Probe.HTTP), layout)
    while not processes.log_tail(layout.log("deaf")):  # noqa: ASYNC110 - another process has no Event to set
        await asyncio.sleep(0.01)
    assert not await processes.stop(started.process, 0.1)
    assert await started.ended() == "was killed by signal 9"


async def test_stopping_what_has_ended_is_no_error(layout: Layout) -> None:
    started = processes.start(sleeper(), layout)
    started.child.kill()
    started.child.wait()
    assert await processes.stop(started.process, 1.0)


def test_uptime_and_memory_are_those_of_the_process() -> None:
    me = processes.identify(os.getpid())
    assert me is not None and me.alive()
    assert 0 < me.uptime_s() < time.clock_gettime(time.CLOCK_BOOTTIME)
    assert me.memory_bytes() > 1 << 20


async def test_converge_starts_in_order_and_only_what_is_missing(
    layout: Layout, free_port: int, other_port: int
) -> None:
    wanted = [server("first", free_port), server("second", other_port, needs=("first",))]
    said: list[str] = []
    assert await converge(layout, wanted, said.append) == ["first", "second"]
    assert [line.split()[0] for line in said] == ["first", "second"]
    assert await converge(layout, wanted, said.append) == []
    first = processes.find(wanted[0], layout)
    assert first is not None
    await processes.stop(first, 5.0)
    assert await converge(layout, wanted, said.append) == ["first"]


async def test_converge_undoes_what_it_started_when_one_fails(layout: Layout, free_port: int) -> None:
    broken = Component(
        "broken", [PYTHON, "-c", "print('no such luck'); raise SystemExit(3)"], "127.0.0.1:1", Probe.HTTP
    )
    wanted = [server("good", free_port), replace(broken, needs=["good"])]
    with pytest.raises(ExceptionGroup) as caught:
        await converge(layout, wanted, lambda line: None)
    [failure] = caught.value.exceptions
    assert isinstance(failure, ComponentFailed)
    assert "broken ended with exit code 3" in str(failure) and "| no such luck" in str(failure)
    assert str(layout.log("broken")) in str(failure)
    assert processes.find(wanted[0], layout) is None
    assert not list(layout.run.glob("*.pid"))


async def test_converge_leaves_alone_what_ran_before(layout: Layout, free_port: int) -> None:
    good = server("good", free_port)
    await converge(layout, [good], lambda line: None)
    broken = Component("broken", [PYTHON, "-c", "raise SystemExit(3)"], "127.0.0.1:1", Probe.HTTP)
    with pytest.raises(ExceptionGroup):
        await converge(layout, [good, broken], lambda line: None)
    assert processes.find(good, layout) is not None


async def test_a_taken_port_is_told_before_anything_is_started(layout: Layout, free_port: int) -> None:
    await converge(layout, [server("holder", free_port)], lambda line: None)
    with pytest.raises(AddressTaken, match=f"wants cannot listen on 127.0.0.1:{free_port}"):
        await converge(layout, [sleeper(), server("wants", free_port)], lambda line: None)
    assert processes.find(sleeper(), layout) is None


def test_a_component_that_runs_with_other_flags_is_told(layout: Layout) -> None:
    processes.start(sleeper("x"), layout)
    changed = replace(sleeper("x"), argv=[*sleeper("x").argv, "--more"])
    with pytest.raises(LabError, match=r"x runs with other settings \(--more would change\)"):
        missing(layout, [changed])


def test_only_the_lines_of_this_run_are_shown(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("old\n")
    since = processes.log_size(log)
    with log.open("a") as file:
        file.write("".join(f"line {number}\n" for number in range(30)))
    assert processes.log_tail(log, since, lines=2) == ["line 28", "line 29"]
    assert processes.log_tail(tmp_path / "none") == []
