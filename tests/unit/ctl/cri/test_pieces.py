"""The pure pieces of ``ctl cri``: words, tables, configs, log lines, ports, statuses."""

import asyncio
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cri_runtime.service.streaming import StreamingServer
from ctl.cri import config, log_format, show
from ctl.cri.stream_client import StreamTLS, exit_code_of, forward_connection
from ctl.cri.streams import parse_port
from ctl.errors import CtlError


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (125, "2 minutes"),
        (3600, "About an hour"),
        (7300, "2 hours"),
        (3 * 86400, "3 days"),
        (20 * 86400, "2 weeks"),
        (100 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_ages_are_dockers(seconds: float, words: str) -> None:
    assert show.human_duration(seconds) == words


@pytest.mark.parametrize(
    ("size", "precision", "words"),
    [(0, 4, "0B"), (999, 4, "999B"), (1651697, 3, "1.65MB"), (733184, 4, "733.2kB"), (2.5e9, 4, "2.5GB")],
)
def test_sizes_are_dockers(size: float, precision: int, words: str) -> None:
    assert show.human_size(size, precision) == words


def test_columns_are_at_least_twenty_wide_and_the_last_is_free() -> None:
    assert show.table([["A", "B"], ["x" * 18, "y"]]) == f"{'A':21}B\n{'x' * 18:21}y\n"
    assert show.table([["A", "B"]]) == f"{'A':20}B\n"


def test_timestamps_have_the_digits_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert show.timestamp(1_500_000_000_120_000_000) == "2017-07-14T02:40:00.12Z"
    assert show.timestamp(1_500_000_000_000_000_000) == "2017-07-14T02:40:00Z"
    assert show.timestamp(0) == "0001-01-01T00:00:00Z"


def test_configs_are_read_in_either_spelling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.json"
    path.write_text(
        '{"metadata": {"name": "n"}, "image": {"image": "i"}, "log_path": "l", "workingDir": "/w", "annotations":'
        ' {"free": "form"}, "envs": [{"key": "K", "value": "päß"}],'
        ' "linux": {"resources": {"cpu_shares": 2}, "typo": 1}}'
    )
    read = config.load_container_config(path)
    assert (read.log_path, read.working_dir, read.linux.resources.cpu_shares) == ("l", "/w", 2)
    assert read.envs[0].value.decode() == "päß"
    assert "unknown field linux.typo is ignored" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "neither JSON nor YAML"),
        ("[]", "an object is expected"),
        ("metadata: {name: n}", "metadata.namespace must be set"),
        ("metadata: {name: n, namespace: x, attempt: many}", "attempt"),
    ],
)
def test_a_bad_pod_config_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(text)
    with pytest.raises(CtlError, match=complaint) as raised:
        config.load_pod_config(path)
    assert str(path) in str(raised.value)


def test_a_pod_config_without_uid_gets_one(tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text("metadata: {name: n, namespace: x}")
    assert len(config.load_pod_config(path).metadata.uid) == 36


LOG = (
    b"2026-01-31T12:00:00.5Z stdout F one\n"
    b"2026-01-31T12:00:01+02:00 stderr F err\n"
    b"2026-01-31T12:00:02Z stdout P two, \n"
    b"2026-01-31T12:00:03Z stdout F and its end\n"
    b"2026-01-31T12:00:04Z stdout F \n"
)


def rendered(data: bytes, **how: object) -> bytes:
    printer = log_format.Printer(**how)  # type: ignore[arg-type]
    return b"".join(text for _, text in printer.render(map(log_format.parse_line, data.splitlines(keepends=True))))


def test_partial_entries_are_one_line() -> None:
    assert rendered(LOG) == b"one\nerr\ntwo, and its end\n\n"
    assert rendered(LOG, timestamps=True).splitlines()[2] == b"2026-01-31T12:00:02Z two, and its end"


def test_streams_times_and_sizes_are_cut() -> None:
    assert rendered(LOG, stream="stderr") == b"err\n"
    assert rendered(LOG, since=log_format.parse_since("2026-01-31T12:00:02Z")) == b"two, and its end\n\n"
    assert rendered(LOG, room=5) == b"one\ne"


@pytest.mark.parametrize(("lines", "start"), [(0, b""), (1, b"2026-01-31T12:00:04Z"), (2, b"2026-01-31T12:00:02Z")])
def test_a_tail_counts_whole_lines(lines: int, start: bytes) -> None:
    assert LOG[log_format.tail_start(LOG, lines) :].startswith(start)
    assert log_format.tail_start(LOG, 99) == 0


@pytest.mark.parametrize("line", [b"\n", b"no log\n", b"2026-01-31T12:00:00Z stdin F x\n"])
def test_what_is_no_log_line_is_said(line: bytes) -> None:
    with pytest.raises(CtlError, match="not a CRI log line"):
        log_format.parse_line(line)


def test_since_takes_durations_and_refuses_the_rest() -> None:
    assert log_format.parse_since("1h30m") < log_format.parse_since("42m")
    with pytest.raises(CtlError, match="neither a time"):
        log_format.parse_since("yesterday")


@pytest.mark.parametrize(("text", "pair"), [("80", (80, 80)), ("8080:80", (8080, 80)), (":80", (0, 80))])
def test_port_pairs(text: str, pair: tuple[int, int]) -> None:
    assert parse_port(text) == pair


@pytest.mark.parametrize("text", ["", "x", "80:", "80:x", "0", "1:70000"])
def test_bad_port_pairs(text: str) -> None:
    with pytest.raises(CtlError, match="port"):
        parse_port(text)


def test_a_status_is_an_exit_code_or_a_failure() -> None:
    failure = {"status": "Failure", "reason": "NonZeroExitCode"}
    assert exit_code_of({"status": "Success"}) == 0
    assert exit_code_of({**failure, "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}}) == 7
    with pytest.raises(CtlError, match="no such file"):
        exit_code_of({"status": "Failure", "reason": "InternalError", "message": "no such file"})
    with pytest.raises(CtlError, match="before the command did"):
        exit_code_of(None)


async def test_a_port_forwards_both_ways_until_the_pod_ends_it() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readexactly(100_000))[::-1])
        writer.close()

    async def dial(port: int) -> socket.socket:
        made = socket.socket()
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
        return made

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await forward_connection(server.port_forward_url(dial, [remote]), reader, writer, StreamTLS())
        writer.close()

    server = StreamingServer()
    await server.start()
    data = bytes(range(250)) * 400
    async with (
        await asyncio.start_server(serve, "127.0.0.1", 0) as pod,
        await asyncio.start_server(handle, "127.0.0.1", 0) as local,
    ):
        remote = pod.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(*local.sockets[0].getsockname())
        writer.write(data)
        assert await reader.read(-1) == data[::-1]
        writer.close()
    await server.aclose()


def test_no_runtime_is_an_error_that_helps(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ctl", "--runtime-endpoint", f"unix://{tmp_path}/no.sock", "cri", "ps"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: no container runtime answers at unix://{tmp_path}/no.sock")
    assert "ctl up" in done.stderr


def test_help_loads_neither_grpc_nor_generated_code() -> None:
    script = "import sys, ctl.cri; sys.exit(any(m.split('.')[0] in ('grpc', 'google', 'aiohttp') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
