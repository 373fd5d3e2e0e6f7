"""Volumes on disk, and logs read back."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.kubelet.env import ConfigError, Sources
from control.kubelet.logs import Assembler, Query, parse, read_log, stamp_ns, tail_offset
from control.kubelet.volumes import File, Volumes, hosts_text, wanted_objects, write_files
from protos.k8s import core_v1_pb2 as core


def test_volume_changes_at_once_and_drops_what_is_gone(tmp_path: Path) -> None:
    write_files(tmp_path / "v", [File("a", b"1", 0o644), File("d/b", b"2", 0o600)])
    assert (tmp_path / "v/a").read_text() == "1"
    assert (tmp_path / "v/d/b").stat().st_mode & 0o777 == 0o600
    before = (tmp_path / "v/..data").readlink()
    write_files(tmp_path / "v", [File("a", b"1", 0o644), File("d/b", b"2", 0o600)])
    assert (tmp_path / "v/..data").readlink() == before
    write_files(tmp_path / "v", [File("a", b"3", 0o644)])
    assert (tmp_path / "v/a").read_text() == "3"
    assert not (tmp_path / "v/d").exists()
    assert len([entry for entry in (tmp_path / "v").iterdir() if entry.is_dir() and not entry.is_symlink()]) == 1


def test_kinds_of_volume(tmp_path: Path, pod: Any) -> None:
    projected = {
        "sources": [
            {"configMap": {"name": "c", "items": [{"key": "k", "path": "conf/k"}]}},
            {"secret": {"name": "s"}},
            {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        ]
    }
    web = pod(
        volumes=[
            {"name": "scratch", "emptyDir": {}},
            {"name": "all", "projected": projected},
            {"name": "host", "hostPath": {"path": str(tmp_path / "new"), "type": "DirectoryOrCreate"}},
        ]
    )
    assert wanted_objects(web) == ({"c"}, {"s"})
    sources = Sources({"c": core.ConfigMap(data={"k": "v"})}, {"s": core.Secret(data={"p": b"\0"})})
    paths = Volumes(tmp_path / "pods").mount(web, sources)
    assert (Path(paths["all"]) / "conf/k").read_text() == "v"
    assert (Path(paths["all"]) / "p").read_bytes() == b"\0"
    assert (Path(paths["all"]) / "name").read_text() == "web"
    assert Path(paths["scratch"]).stat().st_mode & 0o777 == 0o777
    assert (tmp_path / "new").is_dir()
    Volumes(tmp_path / "pods").remove("u1")
    assert not (tmp_path / "pods/u1").exists() and (tmp_path / "new").is_dir()


def test_volumes_that_cannot_be_made_say_why(tmp_path: Path, pod: Any) -> None:
    for volume, message in (
        ({"configMap": {"name": "no"}}, 'configmap "no" not found'),
        ({"hostPath": {"path": "/nowhere/at/all", "type": "Directory"}}, "type check failed"),
        ({"nfs": {"server": "s", "path": "/"}}, "nfs is not supported"),
    ):
        with pytest.raises(ConfigError, match=message):
            Volumes(tmp_path).mount(pod(volumes=[{"name": "v", **volume}]), Sources())


def test_hosts_file(pod: Any) -> None:
    web = pod(subdomain="sub", hostAliases=[{"ip": "192.0.2.9", "hostnames": ["db", "cache"]}])
    text = hosts_text(web, "web", ("10.0.0.5",), "cluster.local")
    assert "10.0.0.5\tweb.sub.default.svc.cluster.local\tweb\n" in text
    assert "192.0.2.9\tdb\tcache\n" in text


# -- logs --------------------------------------------------------------------------------------------------------


def line(content: str, tag: str = "F", second: int = 0, stream: str = "stdout") -> bytes:
    return f"2026-01-31T12:00:{second:02}.000000001Z {stream} {tag} {content}\n".encode()


def test_lines_of_the_log_format() -> None:
    entry = parse(line("hello world").rstrip(b"\n"))
    assert entry is not None
    assert (entry.stream, entry.partial, entry.content) == ("stdout", False, b"hello world")
    assert stamp_ns(entry.stamp) == 1_769_860_800_000_000_001
    assert stamp_ns("2026-01-31T13:00:00+01:00") == 1_769_860_800_000_000_000
    assert parse(b"not a log line") is None


def test_partial_lines_are_joined_and_stamped_once() -> None:
    assembler = Assembler(Query(timestamps=True))
    pieces = [line("one ", "P"), line("line", "F"), line("two", "F", 1)]
    text = b"".join(assembler.text(piece.rstrip(b"\n")) for piece in pieces)
    assert text == b"2026-01-31T12:00:00.000000001Z one line\n2026-01-31T12:00:01.000000001Z two\n"


def test_limit_cuts_and_ends() -> None:
    assembler = Assembler(Query(limit_bytes=8))
    assert assembler.text(line("hello").rstrip(b"\n")) + assembler.text(line("world").rstrip(b"\n")) == b"hello\nwo"
    assert assembler.done


async def read(path: Path, query: Query) -> str:
    return b"".join([chunk async for chunk in read_log(path, query, lambda: False)]).decode()


async def test_tail_and_since(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_bytes(b"".join(line(f"n{n}", second=n) for n in range(10)))
    assert await read(log, Query(tail_lines=2)) == "n8\nn9\n"
    assert await read(log, Query(tail_lines=0)) == ""
    assert await read(log, Query(tail_lines=99)) == "".join(f"n{n}\n" for n in range(10))
    assert await read(log, Query(since_ns=stamp_ns("2026-01-31T12:00:08Z"))) == "n8\nn9\n"


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.booleans()), max_size=60), st.integers(0, 70))
def test_tail_is_the_last_lines_of_the_whole(pieces: list[tuple[int, bool]], lines: int) -> None:
    """Against the naive way: assemble everything, then cut."""
    from control.kubelet import logs

    whole = b"".join(line("x" * size, "F" if full else "P") for size, full in pieces)
    old, logs.BLOCK = logs.BLOCK, 64
    try:
        offset = tail_offset(lambda at, length: whole[at : at + length], len(whole), lines)
    finally:
        logs.BLOCK = old

    def text(data: bytes) -> str:
        assembler = Assembler(Query())
        return b"".join(assembler.text(piece) for piece in data.split(b"\n")).decode()

    *complete, unfinished = text(whole).split("\n")
    wanted = "".join(f"{one}\n" for one in complete[-lines:]) + unfinished if lines else ""
    assert text(whole[offset:]) == wanted


async def test_follow_through_rotation_until_the_container_ends(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_bytes(line("first"))
    running = True
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def follow() -> None:
        async for chunk in read_log(log, Query(follow=True), lambda: running):
            heard.put_nowait(chunk)

    reader = asyncio.create_task(follow())
    async with asyncio.timeout(10):
        assert await heard.get() == b"first\n"
        with log.open("ab") as file:
            file.write(line("second"))
        log.rename(tmp_path / "0.log.1")
        log.write_bytes(line("third"))
        assert await heard.get() + await heard.get() == b"second\nthird\n"
        running = False
        await reader
