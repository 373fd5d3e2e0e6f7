"""The demo's parts that need no cluster: its proof, its terminal, its traffic."""

import http.server
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctl.demo import traces
from ctl.demo.stage import StepFailed, expect
from ctl.demo.terminal import Person
from ctl.demo.traces import Traces, left_behind
from ctl.demo.traffic import Traffic, hit

MARKS = ("/state", "knarr0 ")


def changes(*new: traces.Thing, shared: bool = False) -> tuple[list[traces.Thing], list[traces.Thing]]:
    before = Traces(frozenset({("mount", "/proc (proc, mount 1)")}))
    return left_behind(before, Traces(before.things | set(new)), MARKS, shared)


def test_nothing_new_is_nothing_left() -> None:
    assert changes() == ([], [])


@pytest.mark.parametrize("sort", traces.STRICT)
def test_on_a_machine_of_ones_own_every_kernel_object_counts(sort: str) -> None:
    thing = (sort, "something")
    assert changes(thing) == ([thing], [])
    assert changes(thing, shared=True) == ([], [thing])


@pytest.mark.parametrize(
    "thing", [("process", "7 x --root=/state/cri"), ("link", "knarr0 (9)"), ("file", "/run/state")]
)
def test_what_bears_the_clusters_mark_counts_always(thing: traces.Thing) -> None:
    assert changes(thing, shared=True) == ([thing], [])


def test_other_peoples_processes_and_files_do_not_count(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.touch()
    if os.geteuid() == 0:
        os.chown(theirs, 65534, 65534)
        assert changes(("file", str(theirs))) == ([], [("file", str(theirs))])
    assert changes(("process", "9 bash")) == ([], [("process", "9 bash")])


def test_this_machine_has_some_of_each_sort(tmp_path: Path) -> None:
    found = traces.take(tmp_path)
    counts = found.counts()
    assert all(counts[sort] > 0 for sort in ("process", "mount", "network namespace", "link", "file"))
    assert any(str(os.getpid()) == name.split()[0] for sort, name in found.things if sort == "process")


def test_expect_fails_a_step_with_a_sentence() -> None:
    expect(1, "never said")
    with pytest.raises(StepFailed, match="what was seen"):
        expect([], "what was seen")


def test_a_person_types_reads_and_resizes() -> None:
    script = (
        "import os, signal\n"
        "signal.signal(signal.SIGWINCH, lambda *a: print('now', os.get_terminal_size().columns, flush=True))\n"
        "print('columns', os.get_terminal_size().columns, flush=True)\n"
        "raise SystemExit(int(input('code? ')))\n"
    )
    with Person([sys.executable, "-c", script], os.environ, width=70) as person:
        assert person.read_until(r"columns (\d+)")[1] == "70"
        person.read_until("code\\? ")
        person.resize(100, 30)
        assert person.read_until(r"now (\d+)")[1] == "100"
        person.type("5\n")
        assert person.exit_code() == 5


@pytest.fixture
def service() -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "3")
            self.end_headers()
            self.wfile.write(b"hit")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_traffic_counts_answers_and_failures(service: int) -> None:
    assert hit("127.0.0.1", service) == "hit"
    with Traffic("127.0.0.1", service) as traffic:
        assert traffic.settle(5)
    assert traffic.answers["hit"] >= 5 and not traffic.failures
    with Traffic("127.0.0.1", 1) as nobody:
        assert nobody.settle(2)
    assert nobody.failures and "Connection refused" in nobody.failures[0]
