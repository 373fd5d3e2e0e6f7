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
from ctl.demo.traces import Marks, Traces, left_behind
from ctl.demo.traffic import Traffic, hit
from ctl.lab.layout import Layout
from ctl.lab.settings import Settings

LAYOUT = Layout(Path("/tmp/state"))


@pytest.fixture
def marks() -> Marks:
    made = Marks()
    made.of(LAYOUT, Settings("node", "192.0.2.7", network=3))
    made.texts |= {"0123456789a", "a-pods-uid"}
    return made


def new_things(marks: Marks, *new: traces.Thing, strict: bool = False) -> list[traces.Thing]:
    before = Traces(frozenset({("mount", "/proc (proc, mount 1)")}))
    return left_behind(before, Traces(before.things | set(new)), marks, strict)[0]


def test_nothing_new_is_nothing_left(marks: Marks) -> None:
    assert new_things(marks, strict=True) == []


@pytest.mark.parametrize(
    "thing",
    [
        ("process", "7 (since tick 9) python3: python3 -m cri_runtime --root=/tmp/state/cri"),
        ("process", "7 (since tick 9) pod:0123456789a: python3 shim 0::/"),
        ("process", "7 (since tick 9) python3: python3 /app.py 0::/kubepods/besteffort/poda-pods-uid/c"),
        ("mount", "/tmp/state/run/cri/pods/x/shm (tmpfs, mount 99)"),
        ("link", "knarr3 (9)"),
        ("link", "veth0123456789a (10)"),
        ("route", "10.103.0.0/16 table 255 type 2 oif 1"),
        ("route", "10.247.0.0/24 table 254 type 1 oif 9"),
        ("nftables table", "table inet knarr_knarr3"),
        ("cgroup", "/sys/fs/cgroup/pids/kubepods/besteffort/poda-pods-uid"),
        ("file", "/tmp/state.sock"),
    ],
    ids=lambda thing: thing[1],
)
def test_what_bears_a_mark_of_the_cluster_is_left_behind(marks: Marks, thing: traces.Thing) -> None:
    assert new_things(marks, thing) == [thing]


@pytest.mark.parametrize(
    "thing",
    [
        ("process", "9 (since tick 9) bash: bash 0::/user.slice"),
        ("network namespace", "net:[4026]"),
        ("link", "knarr31 (9)"),
        ("link", "vethffff (10)"),
        ("nftables table", "table inet filter"),
        ("file", "/tmp/other"),
    ],
    ids=lambda thing: thing[1],
)
def test_what_others_do_counts_only_in_strict_mode(marks: Marks, thing: traces.Thing) -> None:
    assert new_things(marks, thing) == []
    assert new_things(marks, thing, strict=True) == [thing]


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
        "import os\n"
        "input(f'columns {os.get_terminal_size().columns}? ')\n"
        "raise SystemExit(int(input(f'now {os.get_terminal_size().columns}, code? ')))\n"
    )
    with Person([sys.executable, "-c", script], os.environ, width=70) as person:
        assert person.read_until(r"columns (\d+)\? ")[1] == "70"
        person.resize(100, 30)
        person.type("\n")
        assert person.read_until(r"now (\d+), code\? ")[1] == "100"
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
