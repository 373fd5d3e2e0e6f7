"""The command line as a whole: help, global flags, wrong input; no cluster is up in these tests."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

from ctl.context import Context
from ctl.errors import explain, report
from ctl.main import app


class Outcome(NamedTuple):
    """What a user sees."""

    code: int
    stdout: str
    stderr: str


Ctl = Callable[..., Outcome]


@pytest.fixture
def ctl(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ctl:
    """Run a command in this process, with a state directory where nothing is."""
    monkeypatch.setenv("KNARR_STATE_DIR", str(tmp_path / "state"))

    def run(*words: str) -> Outcome:
        try:
            code = app.main(list(words), prog_name="ctl", standalone_mode=False)
        except BaseException as err:
            code = report(err)
        return Outcome(code if isinstance(code, int) else 0, *capfd.readouterr())

    return run


def test_help_lists_every_command_without_importing_one(tmp_path: Path) -> None:
    script = (
        "import sys; from ctl.main import main\n"
        "sys.argv = ['ctl', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('grpc', 'yaml', 'google.protobuf', 'pyroute2', 'cryptography') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    for name in app.table:  # type: ignore[attr-defined]
        assert f"  {name} " in done.stdout


def test_every_command_has_help_and_its_section_text_agrees() -> None:
    root = click.Context(app)
    for name in app.table:  # type: ignore[attr-defined]
        command = app.get_command(root, name)
        assert command is not None and (command.help or command.get_short_help_str()), name


def test_unknown_command_is_told_and_exits_1(ctl: Ctl) -> None:
    outcome = ctl("gett")
    assert outcome.code == 1
    assert outcome.stderr == 'error: unknown command "gett" for "ctl"\nSee \'ctl -h\' for help and examples\n'


def test_unknown_flag_is_told_and_exits_1(ctl: Ctl) -> None:
    outcome = ctl("get", "pods", "--foo")
    assert outcome.code == 1 and outcome.stderr.startswith("error: No such option '--foo'")


def test_without_a_cluster_every_verb_says_what_to_run(ctl: Ctl, tmp_path: Path) -> None:
    outcome = ctl("get", "pods")
    assert outcome.code == 1
    assert outcome.stderr == (
        f"error: no cluster is up: {tmp_path}/state/config does not exist; start one with "
        f"'ctl --state-dir {tmp_path}/state up' as root, or name one with --config\n"
    )


def test_a_config_that_does_not_exist_is_named(ctl: Ctl, tmp_path: Path) -> None:
    outcome = ctl("--config", str(tmp_path / "nope"), "get", "pods")
    assert outcome == (1, "", f"error: the config file {tmp_path}/nope does not exist\n")


def test_a_server_that_does_not_answer_is_named(ctl: Ctl) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        outcome = ctl("--server", address, "get", "pods")
    assert outcome.code == 1
    assert outcome.stderr.startswith(f"Unable to connect to the server: the apiserver at {address} cannot be reached")
    assert "'ctl up' starts what is missing" in outcome.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "Bad_Name", "--image=x"), 'replicationcontroller name "Bad_Name" is invalid'),
        (("run", "x", "--image=y", "--port=70000"), "--port 70000 is out of range: 1 to 65535"),
        (("run", "x", "--image=y", "--port=http"), "'http' is not a valid integer"),
        (("run", "x"), "Missing option '--image'"),
        (("run", "x", "--image=y", "--replicas=-1"), "--replicas -1 is out of range"),
        (("run", "x", "--image=y", "--env=A"), '--env "A" is not of the form KEY=VALUE'),
        (("run", "x", "--image=y", "--restart=Never", "--replicas=2"), "--replicas needs --restart=Always"),
        (("get", "pds"), 'the server doesn\'t have a resource type "pds" (did you mean pods?)'),
        (("get",), "Required resource not specified"),
        (("get", "pods", "-o", "xml"), 'unable to match a printer suitable for the output format "xml"'),
        (("get", "pods", "x", "-A"), "a resource cannot be retrieved by name across all namespaces"),
        (("create",), "must specify one of -f and KIND NAME"),
        (("create", "pod", "x"), "cannot create 'pod x' from flags"),
        (("apply",), "must specify -f"),
        (("delete", "pods"), "no name was specified"),
        (("exec", "x"), "you must specify at least one command"),
        (("logs",), "expected 'logs"),
        (("wait", "pod/x", "--for=nonsense"), 'unrecognized condition: "nonsense"'),
        (("wait", "pod/x", "--for=delete", "--timeout=5"), 'invalid duration "5"'),
        (("label", "pod", "x"), "at least one update is required"),
        (("port-forward", "x", "eighty"), '"eighty" is not a port'),
        (("port-forward", "x", "80:70000"), "is out of range"),
        (("patch", "pod", "x"), "must specify one of -p and --patch-file"),
        (("patch", "pod", "x", "-p", "["), "unable to parse"),
        (("scale", "rc", "x", "--replicas=-1"), "COUNT must be greater than or equal to 0"),
        (("scale", "pod", "x", "--replicas=1"), "a pod cannot be scaled"),
    ],
)
def test_wrong_input_is_told_before_anything_is_sent(ctl: Ctl, words: tuple[str, ...], message: str) -> None:
    outcome = ctl("--server", "127.0.0.1:9", *words)
    assert outcome.code == 1
    assert message in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Pod\napiVersion: v1\nspec: {replicsa: 1}", "spec.replicsa: unknown field"),
        (
            "kind: Pod\napiVersion: v1\nspec: {containers: [{name: a, image: [1]}]}",
            "spec.containers[0].image: expected",
        ),
        ("kind: Pod\napiVersion: v2", "kind: there is no Pod in 'v2': use apiVersion v1"),
        ("kind: Pod", "apiVersion: required"),
        ("a: [", "not YAML"),
        ("", "no objects in"),
    ],
)
def test_a_wrong_manifest_is_told_with_the_field(ctl: Ctl, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    outcome = ctl("--server", "127.0.0.1:9", "create", "-f", str(path))
    assert outcome.code == 1
    assert message in outcome.stderr and str(path) in outcome.stderr


def test_a_missing_manifest_is_named(ctl: Ctl) -> None:
    assert ctl("--server", "127.0.0.1:9", "apply", "-f", "/nope").stderr == 'error: the path "/nope" does not exist\n'


# --- global flags --------------------------------------------------------------------------------------------------


def context_after(*words: str) -> Context:
    """The context object as a command saw it."""
    seen: list[Context] = []
    probe = click.Command("probe", callback=click.pass_obj(lambda context: seen.append(context)))
    group: Any = app
    group.table["probe"] = "ctl.main:probe"
    sys.modules["ctl.main"].probe = probe  # type: ignore[attr-defined]
    try:
        app.main(list(words), standalone_mode=False)
    finally:
        del group.table["probe"]
    return seen[0]


def test_global_flags_work_before_and_after_the_command() -> None:
    assert context_after("-n", "web", "probe").namespace == "web"
    assert context_after("probe", "-n", "web").namespace == "web"
    assert context_after("-n", "a", "probe", "-n", "b").namespace == "b"
    assert context_after("probe", "--state-dir", "/x").runtime_endpoint == "unix:///x/run/cri.sock"
    assert context_after("probe", "-r", "unix:///y").runtime_endpoint == "unix:///y"


def test_the_state_directory_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNARR_STATE_DIR", "/from/env")
    assert context_after("probe").state_dir == Path("/from/env")


# --- the lab, without starting anything ----------------------------------------------------------------------------


def test_down_and_status_say_that_nothing_is_running(ctl: Ctl) -> None:
    assert ctl("down").stdout.startswith("nothing is running")
    assert ctl("down").code == 0
    outcome = ctl("status")
    assert outcome.code == 1 and "'ctl up' starts a cluster" in outcome.stdout


def test_env_without_a_cluster_says_what_to_run(ctl: Ctl) -> None:
    outcome = ctl("env")
    assert outcome.code == 1 and "start one with 'ctl up'" in outcome.stderr


def test_up_needs_root(ctl: Ctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    outcome = ctl("up")
    assert outcome.code == 1 and "ctl up needs root" in outcome.stderr and "sudo" in outcome.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.root
def test_up_on_a_directory_that_cannot_be_written_leaves_nothing(ctl: Ctl) -> None:
    outcome = ctl("--state-dir", "/dev/null/x", "up", "--port-offset=21000", "--network=9")
    assert outcome.code == 1
    assert "the state directory /dev/null/x is not writable (Not a directory)" in outcome.stderr


@pytest.mark.root
def test_up_on_a_taken_port_names_port_and_holder_and_leaves_nothing(ctl: Ctl, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        offset = taken.getsockname()[1] - 7443
        outcome = ctl("up", f"--port-offset={offset}", "--network=9")
    if "puts the" in outcome.stderr:
        pytest.skip("the random port leaves no room for the other listeners")
    assert outcome.code == 1
    assert f"cannot listen on 127.0.0.1:{7443 + offset}: the port is taken by" in outcome.stderr
    assert f"(pid {os.getpid()})" in outcome.stderr and "--port-offset" in outcome.stderr
    assert not (tmp_path / "state").exists()


def test_up_refuses_a_node_name_that_is_none(ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    outcome = ctl("up", "--node-name=No_Node")
    assert outcome.code == 1 and 'node name "No_Node" is not an RFC 1123 name' in outcome.stderr


@pytest.mark.parametrize(
    ("err", "text"),
    [
        (PermissionError(13, "Permission denied", "/x/ca.crt"), "error: you may not use /x/ca.crt: use sudo"),
        (FileNotFoundError(2, "No such file or directory", "/x"), "error: [Errno 2] No such file or directory: '/x'"),
        (KeyError("bug"), None),
    ],
)
def test_only_what_a_user_can_act_on_is_told_in_a_line(err: Exception, text: str | None) -> None:
    assert explain(err) == text


def test_an_old_python_is_told_in_a_sentence() -> None:
    script = "import sys; sys.version_info = (3, 9, 1); import ctl"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: knarr needs Python 3.11 or newer, this is 3.9")
