"""The pure rules of pods: states, users, capabilities, signals, validation, files."""

import signal
from pathlib import Path

import pytest

from cri_runtime.images.manifest import ImageConfig
from cri_runtime.pod import capabilities, files, machine, signals, spec
from cri_runtime.pod.errors import InvalidConfig, WrongState
from cri_runtime.pod.execs import ANSWER_MAX, fit
from cri_runtime.pod.records import ContainerRecord, SandboxRecord, Status, decode_container, decode_sandbox, encode
from cri_runtime.pod.stats import parse_devices
from cri_runtime.pod.users import User, Wanted, read_from_layers, resolve
from cri_runtime.pod.validate import validate_container, validate_sandbox
from protos.cri import runtime_pb2 as cri

# --- states


def container(state: str = "created") -> ContainerRecord:
    return ContainerRecord(
        "c", "s", b"", "sha256:1", "ref", 1, "/knarr/c", "", 0, 0, (0,), 15, b"", status=Status(state)
    )


RUNNING = {"state": "running", "pid": 7, "started_at": 2}


def exited(code: int, **more: object) -> dict:
    return {"state": "exited", "exit_code": code, "started_at": 2, "finished_at": 3, **more}


def test_a_container_moves_forward_only() -> None:
    running = machine.observed(container(), RUNNING)
    assert (running.status.state, running.status.pid) == ("running", 7)
    done = machine.observed(running, exited(0))
    assert (done.status.state, done.status.reason, done.status.pid) == ("exited", "Completed", 0)
    assert machine.observed(done, RUNNING) == done == machine.observed(done, exited(1))


@pytest.mark.parametrize(
    ("report", "code", "reason"),
    [
        (exited(0), 0, "Completed"),
        (exited(1), 1, "Error"),
        (exited(137, oom=True), 137, "OOMKilled"),
        (exited(0, oom=True), 0, "Completed"),
        (exited(128, error={"step": "exec", "errno": 2, "path": "/x", "text": "gone"}), 128, "StartError"),
    ],
)
def test_reasons(report: dict, code: int, reason: str) -> None:
    status = machine.observed(container("running"), report).status
    assert (status.exit_code, status.reason) == (code, reason)


def test_a_lost_container_has_ended_with_255_and_stays_so() -> None:
    lost = machine.lost(machine.observed(container(), RUNNING), 9)
    assert (lost.status.exit_code, lost.status.reason, lost.status.finished_at) == (255, "Unknown", 9)
    assert machine.observed(container(), machine.report_of(lost)).status == lost.status
    assert machine.lost(container(), 9) == container()


def test_what_each_state_allows() -> None:
    machine.require_created(container())
    machine.require_running(container("running"))
    for check, state in ((machine.require_created, "running"), (machine.require_running, "exited")):
        with pytest.raises(WrongState, match=state.upper()):
            check(container(state))


def test_records_survive_the_disk() -> None:
    sandbox = SandboxRecord("s", b"\0\xff", "", 1, True, False, ("10.0.0.1",))
    assert decode_sandbox(encode(sandbox)) == sandbox
    assert decode_container(encode(container())) == container()
    assert decode_container(encode(container("running"))).status == Status()  # the supervisor's file has that


# --- users

PASSWD = "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:\n1000:x:77:78::/odd:\n"
GROUP = "root:x:0:\nweb:x:34:\nlogs:x:40:web,other\n"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(), User(0, 0, (0,), "/root")),
        (Wanted("web"), User(33, 34, (34, 40), "/srv")),
        (Wanted("33"), User(33, 34, (34, 40), "/srv")),
        (Wanted("33", "logs"), User(33, 40, (40,), "/srv")),
        (Wanted("4242"), User(4242, 0, (0,), "/")),
        (Wanted("4242", "5"), User(4242, 5, (5,), "/")),
        (Wanted("1000"), User(77, 78, (78,), "/odd")),  # a name of digits wins over a number
        (Wanted("web", groups=(7, 40)), User(33, 34, (34, 40, 7), "/srv")),
        (Wanted("web", groups=(7,), merge=False), User(33, 34, (34, 7), "/srv")),
    ],
)
def test_users(wanted: Wanted, expected: User) -> None:
    assert resolve(wanted, PASSWD, GROUP) == expected


@pytest.mark.parametrize("wanted", [Wanted("nobody"), Wanted("0", "nogroup"), Wanted("-1"), Wanted("99999999999")])
def test_unknown_users(wanted: Wanted) -> None:
    with pytest.raises(InvalidConfig):
        resolve(wanted, PASSWD, GROUP)


def test_layers_hide_one_another(tmp_path: Path) -> None:
    top, bottom = tmp_path / "top", tmp_path / "bottom"
    for layer in (top, bottom):
        (layer / "etc").mkdir(parents=True)
    (bottom / "etc" / "passwd").write_text("below")
    assert read_from_layers([top, bottom], "etc/passwd") == "below"
    (top / "etc" / "passwd").symlink_to("/real")  # stays inside the layer
    (top / "real").write_text("above")
    assert read_from_layers([top, bottom], "etc/passwd") == "above"
    assert read_from_layers([top, bottom], "etc/shadow") == ""


def test_the_images_user_and_the_configs() -> None:
    image = ImageConfig(user="web:logs")
    config = cri.ContainerConfig()
    assert spec.wanted_user(config, image) == Wanted("web", "logs")
    config.linux.security_context.run_as_user.value = 5
    assert spec.wanted_user(config, image) == Wanted("5")
    config.linux.security_context.supplemental_groups_policy = cri.Strict
    assert not spec.wanted_user(config, image).merge


# --- what runs


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        ([], [], ["entry", "cmd"]),
        (["mine"], [], ["mine"]),
        ([], ["a"], ["entry", "a"]),
        (["mine"], ["a"], ["mine", "a"]),
    ],
)
def test_commands(command: list[str], args: list[str], expected: list[str]) -> None:
    image = ImageConfig(entrypoint=("entry",), cmd=("cmd",))
    assert spec.command_of(cri.ContainerConfig(command=command, args=args), image) == expected


def test_nothing_to_run() -> None:
    with pytest.raises(InvalidConfig):
        spec.command_of(cri.ContainerConfig(), ImageConfig())


def test_environment_layers_win_from_outside_in() -> None:
    config = cri.ContainerConfig(envs=[cri.KeyValue(key="A", value=b"3"), cri.KeyValue(key="B", value=b"\xff")])
    made = spec.environment(config, ImageConfig(env=("A=1", "PATH=/x")), User(0, 0, (0,), "/root"), "host")
    assert made == ["PATH=/x", "HOSTNAME=host", "HOME=/root", "A=3", "B=\udcff"]


def test_merged_resources() -> None:
    old = cri.LinuxContainerResources(memory_limit_in_bytes=5, cpu_quota=7, unified={"a": "1"})
    change = cri.LinuxContainerResources(cpu_quota=8, unified={"b": "2"})
    merged = spec.merged_resources(old, change)
    assert (merged.memory_limit_in_bytes, merged.cpu_quota, dict(merged.unified)) == (5, 8, {"b": "2"})


# --- capabilities, signals, files


def test_capability_sets() -> None:
    both = capabilities.effective(["ALL"], ["CAP_SYS_ADMIN"], "f")
    assert both == capabilities.ALL - {"SYS_ADMIN"}
    assert capabilities.effective(["chown"], ["ALL"], "f") == {"CHOWN"}
    assert capabilities.effective([], [], "f") == capabilities.DEFAULT
    assert capabilities.mask({"CHOWN", "KILL"}) == 0b100001
    with pytest.raises(InvalidConfig, match=r"f\.add_capabilities"):
        capabilities.effective(["NOPE"], [], "f")


@pytest.mark.parametrize(
    ("name", "number"),
    [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN+3", signal.SIGRTMIN + 3), ("RTMAX-1", signal.SIGRTMAX - 1)],
)
def test_signal_names(name: str, number: int) -> None:
    assert signals.number_of(name) == number


def test_every_cri_signal_has_a_number_and_comes_back() -> None:
    for value in cri.Signal.values():
        number = signals.from_cri(value)
        assert value == cri.SIGNAL_RUNTIME_DEFAULT or signals.from_cri(signals.to_cri(number)) == number
    with pytest.raises(InvalidConfig):
        signals.number_of("SIGNONSENSE")
    assert signals.effective(0, "SIGNONSENSE") == signals.effective(0, "") == signal.SIGTERM
    assert signals.effective(cri.SIGNAL_SIGUSR1, "SIGINT") == signal.SIGUSR1


def test_files() -> None:
    dns = cri.DNSConfig(servers=["1.1.1.1", "8.8.8.8"], searches=["a", "b"], options=["ndots:5"])
    assert files.resolv_conf(dns) == "search a b\nnameserver 1.1.1.1\nnameserver 8.8.8.8\noptions ndots:5\n"
    assert files.hosts(["10.0.0.1"], "web").endswith("10.0.0.1\tweb\n")


def test_output_fits_into_an_answer() -> None:
    big = b"x" * (16 << 20)
    assert [len(part) for part in fit(big, b"err")] == [ANSWER_MAX - 3, 3]
    assert [len(part) for part in fit(big, big)] == [ANSWER_MAX // 2, ANSWER_MAX // 2]
    assert fit(b"o", b"e") == (b"o", b"e")


def test_network_devices_are_read() -> None:
    lines = ["    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0", "  eth0: 100 2 3 0 0 0 0 0 200 4 5 0 0 0 0 0"]
    assert parse_devices(lines) == [("eth0", 100, 3, 200, 5)]


# --- validation


def sandbox_config(**linux: object) -> cri.PodSandboxConfig:
    metadata = cri.PodSandboxMetadata(name="n", namespace="ns", uid="u")
    return cri.PodSandboxConfig(metadata=metadata, linux=linux)


@pytest.mark.parametrize(
    ("sysctl", "options", "fine"),
    [
        ("net.ipv4.ip_forward", {}, True),
        ("net/ipv4/ip_forward", {}, True),
        ("kernel.shmmax", {}, True),
        ("kernel.panic", {}, False),
        ("net.ipv4.ip_forward", {"network": cri.NODE}, False),
        ("kernel.shmmax", {"ipc": cri.NODE}, False),
        ("net.../../kernel/panic", {}, False),
        ("net", {}, False),
    ],
)
def test_sysctls(sysctl: str, options: dict, fine: bool) -> None:
    config = sandbox_config(sysctls={sysctl: "1"}, security_context={"namespace_options": options})
    if fine:
        validate_sandbox(config, "", ("",))
    else:
        with pytest.raises(InvalidConfig, match="sysctls"):
            validate_sandbox(config, "", ("",))


@pytest.mark.parametrize("mode", [cri.POD, cri.CONTAINER, cri.TARGET])
def test_user_namespaces_are_refused_clearly(mode: int) -> None:
    config = sandbox_config(security_context={"namespace_options": {"userns_options": {"mode": mode}}})
    with pytest.raises(InvalidConfig, match="userns_options"):
        validate_sandbox(config, "", ("",))


def test_containers_are_validated() -> None:
    good = cri.ContainerConfig(metadata={"name": "c"}, image={"image": "i"})
    validate_container(good)
    for change in (
        {"metadata": {"name": ""}},
        {"image": {"image": ""}},
        {"linux": {"security_context": {"run_as_group": {"value": 1}}}},
        {"mounts": [{"container_path": "/x", "host_path": "/no/such/path"}]},
        {"mounts": [{"container_path": "", "host_path": "/"}]},
        {"log_path": "../x"},
        {"linux": {"security_context": {"namespace_options": {"pid": cri.TARGET}}}},
    ):
        bad = cri.ContainerConfig(metadata={"name": "c"}, image={"image": "i"})
        for name in change:
            bad.ClearField(name)  # type: ignore[arg-type]
        bad.MergeFrom(cri.ContainerConfig(**change))  # type: ignore[arg-type]
        with pytest.raises(InvalidConfig):
            validate_container(bad)
