"""The pure parts: flags, what they are in CRI's words, names, templates, detach keys, tables, layers."""

import os
import random
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ctl.container import flags, template
from ctl.container.changes import changes, visible
from ctl.container.copy import split
from ctl.container.create import named, spec_of
from ctl.container.group import DaemonError, container
from ctl.container.names import ADJECTIVES, PEOPLE, is_name, random_name
from ctl.container.node import Attempt, Container, choose, code_of_failed_start, tmpfs_data
from ctl.container.session import DetachKeys
from ctl.container.spec import Mount, Port, Spec, command_line, container_config, decode, encode, sandbox_config
from ctl.container.state import ports_text, table
from ctl.errors import CtlError
from protos.cri import runtime_pb2 as cri

VOLUMES = Path("/volumes")


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("8080:80", [Port(80, 8080)]),
        ("80", [Port(80)]),
        ("127.0.0.1:8080:80/udp", [Port(80, 8080, "127.0.0.1", "udp")]),
        ("127.0.0.1::80", [Port(80, 0, "127.0.0.1")]),
        ("8000-8001:80-81", [Port(80, 8000), Port(81, 8001)]),
    ],
)
def test_ports(text: str, ports: list[Port]) -> None:
    assert flags.parse_ports([text]) == ports


@pytest.mark.parametrize("text", ["x", "80:", "8080:80/ip", "1-2:3-5", "70000", "2-1", "[::1]:80:80", "web:80:80", ""])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(CtlError, match="invalid publish spec"):
        flags.parse_ports([text])


def test_sizes_and_cpus() -> None:
    assert flags.parse_memory("512m") == 512 << 20
    assert flags.parse_memory("1.5g") == 3 << 29
    assert flags.parse_memory("") == 0
    assert flags.parse_cpus("1.5") == 1_500_000_000
    for parse, text in (
        (flags.parse_memory, "1m"),
        (flags.parse_memory, "lots"),
        (flags.parse_cpus, "-1"),
        (flags.parse_cpus, "x"),
    ):
        with pytest.raises(CtlError):
            parse(text)


def test_environment(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# no\n\nA=file\nB=b=c\n")
    assert flags.parse_env(["A=flag", "HERE", "GONE"], [tmp_path / "env"], {"HERE": "1"}) == [
        "A=flag",
        "B=b=c",
        "HERE=1",
    ]
    with pytest.raises(CtlError):
        flags.parse_env(["=x"], [])


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/a:/b", Mount("bind", "/b", "/a")),
        ("/a:/b:ro,rslave", Mount("bind", "/b", "/a", True, propagation="rslave")),
        ("data:/b", Mount("volume", "/b", "/volumes/data/_data", name="data")),
        ("/b", Mount("volume", "/b")),
    ],
)
def test_volumes(text: str, mount: Mount) -> None:
    assert flags.parse_volume(text, VOLUMES) == mount


@pytest.mark.parametrize("text", ["/a:b", "/a:/b:bad", "/a:/", "a b:/c", "a:/b:ro:x", ":/b"])
def test_what_is_no_volume_is_refused(text: str) -> None:
    with pytest.raises(CtlError):
        flags.parse_volume(text, VOLUMES)


def test_mounts(tmp_path: Path) -> None:
    assert flags.parse_mount(f"type=bind,src={tmp_path},dst=/d,ro", VOLUMES) == Mount("bind", "/d", str(tmp_path), True)
    assert flags.parse_mount("type=tmpfs,target=/t,tmpfs-size=1m", VOLUMES) == Mount("tmpfs", "/t", options="size=1m")
    for text in ("type=npipe,dst=/d", "type=bind,src=/no/such,dst=/d", "type=tmpfs", "type=tmpfs,dst=/d,color=red"):
        with pytest.raises(CtlError):
            flags.parse_mount(text, VOLUMES)
    assert tmpfs_data("size=1m,exec") == (["exec"], "size=1m,mode=1777")


def test_signals_and_keys() -> None:
    assert [flags.parse_signal(text) for text in ("KILL", "sigterm", "2", "RTMIN+3")] == [9, 15, 2, 37]
    assert [flags.signal_name(number) for number in (15, 34, 37, 62, 64)] == [
        *("SIGTERM", "SIGRTMIN", "SIGRTMINPLUS3", "SIGRTMAXMINUS2", "SIGRTMAX")
    ]
    assert flags.parse_detach_keys("ctrl-p,ctrl-q,a") == b"\x10\x11a"
    with pytest.raises(CtlError):
        flags.parse_signal("NOPE")


def test_every_signal_has_a_name_in_cri() -> None:
    for number in [*range(1, 32), *range(34, 65)]:
        assert cri.Signal.Value(f"SIGNAL_{flags.signal_name(number)}")


@pytest.mark.parametrize("cut", range(1, 8))
def test_detach_keys_are_found_wherever_input_is_cut(cut: int) -> None:
    keys = DetachKeys(b"\x10\x11")
    data = b"a\x10b\x10\x10\x11rest"
    first, second = keys.feed(data[:cut]), (b"", False)
    if not first[1]:
        second = keys.feed(data[cut:])
    assert first[1] or second[1]
    assert first[0] + second[0] == b"a\x10b\x10"


def given(*words: str) -> dict[str, Any]:
    command = container.commands["create"]
    values = dict(command.make_context("create", [*words, "image"]).params)
    values.pop("image"), values.pop("words")
    return values


def test_flags_become_a_spec_and_cri_messages() -> None:
    words = ("-m", "64m", "--cpus", "0.5", "-u", "7:8", "-e", "A=b", "--cap-drop", "ALL", "--read-only", "-p", "80:80")
    spec = spec_of("image", ("run", "me"), given(*words), VOLUMES)
    assert decode(encode(spec)) == spec
    config = container_config(replace(spec, id="ab" * 32, name="web"), 2, {})
    assert list(config.args) == ["run", "me"] and not config.command
    assert config.linux.resources.cpu_quota == 50_000 and config.linux.resources.memory_limit_in_bytes == 64 << 20
    security = config.linux.security_context
    assert (security.run_as_user.value, security.run_as_group.value, security.readonly_rootfs) == (7, 8, True)
    assert security.seccomp.profile_type == cri.SecurityProfile.RuntimeDefault
    sandbox = sandbox_config(replace(spec, id="ab" * 32, name="web"), 2, "/logs")
    assert (sandbox.hostname, sandbox.metadata.attempt, sandbox.port_mappings[0].host_port) == ("ab" * 6, 2, 80)


@pytest.mark.parametrize(
    ("entrypoint", "words", "runs"),
    [
        (None, [], ["e", "c"]),
        (None, ["x"], ["e", "x"]),
        (["n"], [], ["n"]),
        (["n"], ["x"], ["n", "x"]),
        ([], ["x"], ["x"]),
    ],
)
def test_entrypoint_and_command(entrypoint: list[str] | None, words: list[str], runs: list[str]) -> None:
    spec = Spec(entrypoint=entrypoint, command=words)
    assert command_line(spec, {"Entrypoint": ["e"], "Cmd": ["c"]}) == runs
    config = container_config(spec, 0, {})
    if entrypoint is not None:  # else the runtime adds the image's
        assert [*config.command, *config.args] == runs


def test_usage_errors_of_run_exit_with_125(capsys: pytest.CaptureFixture[str]) -> None:
    from ctl.errors import Failure

    with pytest.raises(Failure) as caught:
        container.commands["run"].make_context("run", ["--nosuch"])
    assert caught.value.code == 125 and "No such option" in capsys.readouterr().err


def test_names() -> None:
    assert len(set(ADJECTIVES)) == len(ADJECTIVES) and len(set(PEOPLE)) == len(PEOPLE)
    taken: set[str] = set()
    for _ in range(200):
        taken.add(random_name(taken, random.Random(1)))
    assert len(taken) == 200 and all(map(is_name, taken))
    assert not is_name("a") and not is_name("-x") and not is_name("a b")
    with pytest.raises(DaemonError, match='The container name "/web" is already in use by container "123"'):
        named(Spec(name="web"), {"web": "123"})


def test_choosing() -> None:
    both = [Container(Spec(id=id * 64, name=name), (Attempt(None),)) for id, name in (("a", "one"), ("b", "two"))]
    both.append(Container(Spec(id="a" * 63 + "b", name="three"), (Attempt(None),)))
    assert choose(both, "two").spec.name == choose(both, "/two").spec.name == choose(both, "bbb").spec.name == "two"
    with pytest.raises(DaemonError, match="No such container: nope"):
        choose(both, "nope")
    with pytest.raises(DaemonError, match="Multiple IDs"):
        choose(both, "aa")


def test_codes_of_programs_that_cannot_start() -> None:
    assert code_of_failed_start("cannot exec: no such program in $PATH: x") == 127
    assert code_of_failed_start("cannot exec: Permission denied: /etc") == 126
    assert code_of_failed_start("cannot mount: No space left on device") == 125


DOCUMENT = {
    "Name": "/web",
    "State": {"Running": True},
    "List": [{"A": 1}, {"A": 2}],
    "Map": {"b": "2", "a": "1"},
    "None": None,
}


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("{{.Name}}", "/web"),
        ("{{.State.Running}}", "true"),
        ("{{json .Map}}", '{"b":"2","a":"1"}'),
        ('{{index .Map "b"}}', "2"),
        ("{{range .List}}{{.A}},{{end}}", "1,2,"),
        ("{{range $k, $v := .Map}}{{$k}}={{$v}} {{end}}", "a=1 b=2 "),
        ("{{if .None}}yes{{else}}no{{end}}", "no"),
        ("{{if .State.Running}}up{{end}}", "up"),
        ("{{with .State}}{{.Running}}{{end}}", "true"),
        ("{{len .List}}\\t{{upper .Name}}", "2\t/WEB"),
        ("{{(index .List 1).A}}", None),
        ("{{.Nope}}", None),
        ("{{range .List}}", None),
        ("{{nosuch .Name}}", None),
    ],
)
def test_templates(text: str, out: str | None) -> None:
    if out is None:
        with pytest.raises(CtlError, match="template"):
            template.render(text, DOCUMENT)
    else:
        assert template.render(text, DOCUMENT) == out


def test_ports_and_tables() -> None:
    spec = Spec(ports=[Port(80, 8080), Port(53, 53, "127.0.0.1", "udp")], exposed=["80/tcp", "9/tcp"])
    assert ports_text(spec, True) == "0.0.0.0:8080->80/tcp, 127.0.0.1:53->53/udp, 9/tcp"
    assert ports_text(spec, False) == ""
    assert table([["A", "NAME"], ["long enough", "x"]]) == "A             NAME\nlong enough   x\n"
    assert split("web:/etc") == ("web", "/etc") and split("./a:b") == ("", "./a:b") and split("f") == ("", "f")


@pytest.mark.root
def test_changes_of_a_layer(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root for device nodes")
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for path in ("etc/old", "etc/gone", "dir/hidden", "dir/again"):
        (lower / path).parent.mkdir(parents=True, exist_ok=True)
        (lower / path).write_text("")
    for path in ("etc/old", "etc/new", "dir/again", "etc/hosts"):
        (upper / path).parent.mkdir(parents=True, exist_ok=True)
        (upper / path).write_text("")
    os.mknod(upper / "etc/gone", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    os.setxattr(upper / "dir", "trusted.overlay.opaque", b"y")
    found = list(changes(upper, [lower]))
    assert found == [
        *(("C", "/dir"), ("D", "/dir/hidden"), ("A", "/dir/again")),
        *(("C", "/etc"), ("D", "/etc/gone"), ("A", "/etc/hosts"), ("A", "/etc/new"), ("C", "/etc/old")),
    ]
    assert ("A", "/etc/hosts") not in visible(found, {"/etc/hosts"})
    assert visible([("C", "/etc"), ("A", "/etc/hosts")], {"/etc/hosts"}) == []
