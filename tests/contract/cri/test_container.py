"""Containers, as CRI has them."""

import re
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.cri import runtime_pb2 as cri

pytestmark = pytest.mark.root

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) [FP] ")


def refused(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.details()
    return caught.value.code()


def test_a_container_is_created_started_and_exits(runtime: Any, sandbox: Any) -> None:
    config = runtime.container_config("sh", "-c", "echo out; echo err >&2; exit 3", labels={"l": "1"})
    container = runtime.create(sandbox, config)
    status = runtime.status(container)
    assert status.state == cri.CONTAINER_CREATED and status.started_at == 0 and status.created_at > 0
    assert status.image.image == "contract:1" and status.image_ref and status.image_id
    runtime.start_container(container)
    status = runtime.exited(container)
    assert (status.exit_code, status.reason) == (3, "Error")
    assert 0 < status.created_at < status.started_at <= status.finished_at
    assert refused(lambda: runtime.start_container(container)) is grpc.StatusCode.FAILED_PRECONDITION
    lines = runtime.log_of(container).splitlines()
    assert all(LINE.match(line) for line in lines)
    assert {line.split(" ", 1)[1] for line in lines} == {"stdout F out", "stderr F err"}
    (item,) = runtime.cri.ListContainers(cri.ListContainersRequest(filter={"label_selector": {"l": "1"}})).containers
    assert item.id == container and item.state == cri.CONTAINER_EXITED and item.pod_sandbox_id == sandbox[0]
    runtime.cri.RemoveContainer(cri.RemoveContainerRequest(container_id=container))
    assert refused(lambda: runtime.status(container)) is grpc.StatusCode.NOT_FOUND
    assert Path(status.log_path).exists()


def test_stop_and_remove_in_every_state(runtime: Any, sandbox: Any) -> None:
    created = runtime.create(sandbox, runtime.container_config("sleep", "1000", name="created"))
    running = runtime.run(sandbox, name="running")
    exited = runtime.run(sandbox, "true", name="exited")
    runtime.exited(exited)
    for container in (created, exited, "0" * 64):
        runtime.cri.StopContainer(cri.StopContainerRequest(container_id=container, timeout=1))
    for container in (created, running, exited, exited, "0" * 64):
        runtime.cri.RemoveContainer(cri.RemoveContainerRequest(container_id=container))
    assert not runtime.cri.ListContainers(cri.ListContainersRequest()).containers


def test_stop_sends_the_stop_signal_and_then_kills(runtime: Any, sandbox: Any) -> None:
    def trapping(name: str, trap: str, **fields: Any) -> Any:
        script = f"trap {trap}; echo ready; while :; do sleep 0.05; done"
        container = runtime.run(sandbox, "sh", "-c", script, name=name, **fields)
        while "ready" not in runtime.log_of(container):
            time.sleep(0.01)
        return container

    polite = trapping("polite", "'exit 7' TERM")
    runtime.cri.StopContainer(cri.StopContainerRequest(container_id=polite, timeout=20))
    assert runtime.status(polite).exit_code == 7

    def by_usr1(config: cri.ContainerConfig) -> None:
        config.stop_signal = cri.SIGNAL_SIGUSR1

    other = trapping("usr1", "'exit 8' USR1", change=by_usr1)
    assert runtime.status(other).stop_signal == cri.SIGNAL_SIGUSR1
    runtime.cri.StopContainer(cri.StopContainerRequest(container_id=other, timeout=20))
    assert runtime.status(other).exit_code == 8
    stubborn = trapping("stubborn", "'' TERM")
    runtime.cri.StopContainer(cri.StopContainerRequest(container_id=stubborn, timeout=1))
    assert runtime.status(stubborn).exit_code == 137


def test_a_program_that_is_not_there(runtime: Any, sandbox: Any) -> None:
    container = runtime.create(sandbox, runtime.container_config("no-such-program"))
    with pytest.raises(grpc.RpcError) as caught:
        runtime.start_container(container)
    assert "no-such-program" in caught.value.details()
    status = runtime.status(container)
    assert (status.state, status.exit_code, status.reason) == (cri.CONTAINER_EXITED, 128, "StartError")
    assert "no-such-program" in status.message


def test_a_missing_image_a_missing_sandbox_a_taken_name(runtime: Any, sandbox: Any) -> None:
    config = runtime.container_config("true")
    config.image.image = "no-such-image:1"
    assert refused(lambda: runtime.create(sandbox, config)) is grpc.StatusCode.NOT_FOUND
    fine = runtime.container_config("true")
    assert refused(lambda: runtime.create(("0" * 64, sandbox[1]), fine)) is grpc.StatusCode.NOT_FOUND
    runtime.create(sandbox, fine)
    assert refused(lambda: runtime.create(sandbox, fine)) is grpc.StatusCode.ALREADY_EXISTS
    assert refused(lambda: runtime.start_container("0" * 64)) is grpc.StatusCode.NOT_FOUND


def test_a_refused_container_leaves_nothing(runtime: Any, sandbox: Any) -> None:
    before = runtime.traces()
    config = runtime.container_config("true")
    config.linux.resources.cpuset_cpus = "4000"
    assert refused(lambda: runtime.create(sandbox, config)) is not grpc.StatusCode.OK
    assert {k: v for k, v in runtime.traces().items() if k != "cgroups"} == {
        k: v for k, v in before.items() if k != "cgroups"
    }
    config.linux.resources.cpuset_cpus = ""
    runtime.create(sandbox, config)


def test_unique_id_prefixes_are_ids(runtime: Any, sandbox: Any) -> None:
    container = runtime.run(sandbox)
    assert runtime.status(container[:13]).id == container


def test_long_lines_are_cut_and_unfinished_ones_partial(runtime: Any, sandbox: Any) -> None:
    container = runtime.run(sandbox, "python3", "-c", "print('x' * 40000); print('end', end='')")
    runtime.exited(container)
    entries = [line.split(" ", 3)[2:] for line in runtime.log_of(container).splitlines()]
    assert [(tag, len(text)) for tag, text in entries] == [("P", 16384), ("P", 16384), ("F", 7232), ("P", 3)]


def test_log_reopen(runtime: Any, sandbox: Any) -> None:
    container = runtime.run(sandbox, "sh", "-c", "while :; do echo tick; sleep 0.02; done")
    path = Path(runtime.status(container).log_path)
    old = path.with_suffix(".old")
    path.rename(old)
    runtime.cri.ReopenContainerLog(cri.ReopenContainerLogRequest(container_id=container))
    size = old.stat().st_size
    assert path.exists()
    deadline = time.monotonic() + 10
    while not path.stat().st_size and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.read_text().startswith("2") and old.stat().st_size == size
    runtime.cri.StopContainer(cri.StopContainerRequest(container_id=container, timeout=0))
    path.unlink()
    code = refused(lambda: runtime.cri.ReopenContainerLog(cri.ReopenContainerLogRequest(container_id=container)))
    assert code is grpc.StatusCode.FAILED_PRECONDITION and not path.exists()


# --- exec


def test_exec_sync_keeps_streams_apart_and_tells_the_code(runtime: Any, sandbox: Any) -> None:
    def with_env(config: cri.ContainerConfig) -> None:
        config.envs.add(key="GREETING", value=b"hello \xff")
        config.working_dir = "/tmp/deep/er"

    container = runtime.run(sandbox, change=with_env)
    result = runtime.exec(container, "sh", "-c", 'echo "$GREETING"; pwd >&2; exit 5')
    assert (result.stdout, result.stderr, result.exit_code) == (b"hello \xff\n", b"/tmp/deep/er\n", 5)
    assert runtime.exec(container, "sh", "-c", "kill -9 $$").exit_code == 137


def test_exec_sync_times_out_and_kills(runtime: Any, sandbox: Any) -> None:
    container = runtime.run(sandbox)
    call = lambda: runtime.exec(container, "sh", "-c", "sleep 12345; true", timeout=1)  # noqa: E731
    assert refused(call) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "12345" not in runtime.sh(container, "ps ax -o args | grep -v grep | grep -v sh.-c || true")


def test_exec_sync_needs_a_running_container(runtime: Any, sandbox: Any) -> None:
    container = runtime.create(sandbox, runtime.container_config("true"))
    assert refused(lambda: runtime.exec(container, "true")) is grpc.StatusCode.FAILED_PRECONDITION
    assert refused(lambda: runtime.exec("0" * 64, "true")) is grpc.StatusCode.NOT_FOUND
    running = runtime.run(sandbox, name="running")
    assert refused(lambda: runtime.exec(running)) is grpc.StatusCode.INVALID_ARGUMENT
    assert refused(lambda: runtime.exec(running, "no-such")) is grpc.StatusCode.UNKNOWN


def test_exec_sync_output_is_capped_and_background_children_do_not_hold_it(runtime: Any, sandbox: Any) -> None:
    container = runtime.run(sandbox)
    result = runtime.exec(container, "sh", "-c", "head -c 20000000 /dev/zero; echo done >&2", timeout=60)
    assert 16_000_000 < len(result.stdout) < 16 << 20 and result.stderr == b"done\n"
    assert runtime.exec(container, "sh", "-c", "sleep 1000 & echo started").stdout == b"started\n"


def test_streaming_urls(runtime: Any, sandbox: Any) -> None:
    container = runtime.run(sandbox)
    url = runtime.cri.Exec(cri.ExecRequest(container_id=container, cmd=["true"], stdout=True)).url
    assert url.startswith("http://127.0.0.1:")
    bad = (
        cri.ExecRequest(container_id=container, cmd=["true"]),
        cri.ExecRequest(cmd=["true"], stdout=True),
        cri.ExecRequest(container_id=container, cmd=["true"], stdout=True, stderr=True, tty=True),
    )
    for request in bad:
        assert refused(lambda r=request: runtime.cri.Exec(r)) is grpc.StatusCode.INVALID_ARGUMENT
    assert runtime.cri.Attach(cri.AttachRequest(container_id=container, stdout=True)).url
    assert runtime.cri.PortForward(cri.PortForwardRequest(pod_sandbox_id=sandbox[0])).url


# --- resources and numbers


def test_limits_are_set_shown_and_changed(runtime: Any, sandbox: Any) -> None:
    def limited(config: cri.ContainerConfig) -> None:
        config.linux.resources.memory_limit_in_bytes = 64 << 20
        config.linux.resources.cpu_quota = 50_000
        config.linux.resources.cpu_period = 100_000
        config.linux.resources.cpu_shares = 512

    container = runtime.run(sandbox, change=limited)
    shown = runtime.status(container).resources.linux
    assert (shown.memory_limit_in_bytes, shown.cpu_quota, shown.cpu_shares) == (64 << 20, 50_000, 512)
    change = cri.LinuxContainerResources(memory_limit_in_bytes=96 << 20)
    request = cri.UpdateContainerResourcesRequest(container_id=container, linux=change)
    runtime.cri.UpdateContainerResources(request)
    shown = runtime.status(container).resources.linux
    assert (shown.memory_limit_in_bytes, shown.cpu_quota) == (96 << 20, 50_000)
    files = "/sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max"
    assert runtime.sh(container, f"cat {files} 2>/dev/null || true") == str(96 << 20)


def test_oom_score(runtime: Any, sandbox: Any) -> None:
    """Raised as asked; lowered where this machine lets the runtime do that, else left, with a warning."""

    def score(value: int) -> Any:
        def change(config: cri.ContainerConfig) -> None:
            config.linux.resources.oom_score_adj = value

        return change

    raised = runtime.run(sandbox, name="raised", change=score(500))
    assert runtime.sh(raised, "cat /proc/2/oom_score_adj /proc/self/oom_score_adj") == "500\n500"
    request = cri.UpdateContainerResourcesRequest(container_id=raised, linux={"oom_score_adj": 700})
    runtime.cri.UpdateContainerResources(request)
    assert runtime.status(raised).resources.linux.oom_score_adj == 700
    assert runtime.sh(raised, "cat /proc/2/oom_score_adj") == "700"
    lowered = runtime.run(sandbox, name="lowered", change=score(-900))
    assert runtime.status(lowered).state == cri.CONTAINER_RUNNING


def test_out_of_memory_is_told(runtime: Any, sandbox: Any) -> None:
    def limited(config: cri.ContainerConfig) -> None:
        config.linux.resources.memory_limit_in_bytes = 24 << 20
        config.linux.resources.memory_swap_limit_in_bytes = 24 << 20

    container = runtime.run(sandbox, "python3", "-c", "x = bytearray(200 << 20)", change=limited)
    status = runtime.exited(container)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


def test_stats(runtime: Any, sandbox: Any) -> None:
    container = runtime.run(sandbox, "sh", "-c", "head -c 300000 /dev/zero > /big; sleep 1000")
    runtime.sh(container, "while [ $(stat -c %s /big) -lt 300000 ]; do sleep 0.01; done")
    stats = runtime.cri.ContainerStats(cri.ContainerStatsRequest(container_id=container)).stats
    assert stats.attributes.id == container and stats.cpu.timestamp > 0 and stats.memory.timestamp > 0
    assert stats.cpu.usage_core_nano_seconds.value > 0 and stats.memory.working_set_bytes.value > 0
    assert stats.writable_layer.used_bytes.value >= 300_000 and stats.writable_layer.inodes_used.value >= 1
    listed = runtime.cri.ListContainerStats(cri.ListContainerStatsRequest(filter={"pod_sandbox_id": sandbox[0]})).stats
    assert [row.attributes.id for row in listed] == [container]
    pod = runtime.cri.PodSandboxStats(cri.PodSandboxStatsRequest(pod_sandbox_id=sandbox[0])).stats
    assert pod.linux.cpu.usage_core_nano_seconds.value > 0 and pod.linux.process.process_count.value >= 2
    assert pod.linux.network.default_interface.name == "eth0"
    assert len(runtime.cri.ListPodSandboxStats(cri.ListPodSandboxStatsRequest()).stats) == 1
    gone = refused(lambda: runtime.cri.ContainerStats(cri.ContainerStatsRequest(container_id="0" * 64)))
    assert gone is grpc.StatusCode.NOT_FOUND


# --- mounts


def test_mounts(runtime: Any, sandbox: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("content")
    (tmp_path / "link").symlink_to(tmp_path / "data")

    def mounted(config: cri.ContainerConfig) -> None:
        config.mounts.add(container_path="/rw", host_path=str(tmp_path / "data"))
        config.mounts.add(container_path="/ro", host_path=str(tmp_path / "link"), readonly=True)
        config.mounts.add(container_path="/one/file", host_path=str(tmp_path / "data" / "file"))

    container = runtime.run(sandbox, change=mounted)
    assert runtime.sh(container, "cat /ro/file /one/file; echo more > /rw/new") == "contentcontent"
    assert (tmp_path / "data" / "new").read_text() == "more\n"
    assert runtime.exec(container, "touch", "/ro/x").exit_code != 0
    shown = {(m.container_path, m.host_path, m.readonly) for m in runtime.status(container).mounts}
    assert ("/ro", str(tmp_path / "link"), True) in shown


def test_mount_targets_stay_inside_the_root(runtime: Any, sandbox: Any, tmp_path: Path) -> None:
    """Links in the way of a mount's target lead to places of the container, never of the host."""
    trap, data = tmp_path / "trap", tmp_path / "data"
    data.mkdir()
    trap.mkdir()
    (trap / "out").symlink_to("/../../.." + str(tmp_path / "victim"))

    def mounted(config: cri.ContainerConfig) -> None:
        config.mounts.add(container_path="/trap", host_path=str(trap))
        config.mounts.add(container_path="/trap/out/x", host_path=str(data))

    container = runtime.run(sandbox, change=mounted)
    assert not (tmp_path / "victim").exists()
    assert runtime.sh(container, f"ls -d {tmp_path}/victim/x") == f"{tmp_path}/victim/x"


def test_mounts_that_are_refused(runtime: Any, sandbox: Any, tmp_path: Path) -> None:
    bad = (
        cri.Mount(container_path="/x", host_path=str(tmp_path / "missing")),
        cri.Mount(container_path="/x", host_path=str(tmp_path), recursive_read_only=True),
        cri.Mount(
            container_path="/x",
            host_path=str(tmp_path),
            recursive_read_only=True,
            readonly=True,
            propagation=cri.PROPAGATION_HOST_TO_CONTAINER,
        ),
    )
    for mount in bad:
        config = runtime.container_config("true", mounts=[mount])
        assert refused(lambda c=config: runtime.create(sandbox, c)) is grpc.StatusCode.INVALID_ARGUMENT
