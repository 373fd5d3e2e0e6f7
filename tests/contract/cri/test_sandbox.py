"""Pod sandboxes, as CRI has them."""

import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.cri import runtime_pb2 as cri

pytestmark = pytest.mark.root


def refused(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.details()
    return caught.value.code()


def test_version_has_all_four_fields(runtime: Any) -> None:
    answer = runtime.cri.Version(cri.VersionRequest())
    assert answer.version == "0.1.0" and answer.runtime_api_version == "v1"
    assert answer.runtime_name == "knarr" and answer.runtime_version


def test_status_has_both_conditions_true(runtime: Any) -> None:
    answer = runtime.cri.Status(cri.StatusRequest(verbose=True))
    assert {c.type: c.status for c in answer.status.conditions} == {"RuntimeReady": True, "NetworkReady": True}
    assert "" in [handler.name for handler in answer.runtime_handlers]
    assert "config" in answer.info


def test_cgroup_driver_is_cgroupfs(runtime: Any) -> None:
    assert runtime.cri.RuntimeConfig(cri.RuntimeConfigRequest()).linux.cgroup_driver == cri.CGROUPFS


def test_rpcs_that_are_not_built_say_so(runtime: Any) -> None:
    code = refused(lambda: runtime.cri.CheckpointContainer(cri.CheckpointContainerRequest()))
    assert code is grpc.StatusCode.UNIMPLEMENTED


def test_a_sandbox_runs_stops_and_is_removed(runtime: Any) -> None:
    config = runtime.sandbox_config(labels={"a": "b"}, annotations={"x": "y"})
    sandbox_id, _ = runtime.run_sandbox(config)
    status = runtime.cri.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id)).status
    assert status.state == cri.SANDBOX_READY
    assert status.metadata == config.metadata and status.created_at > 0
    assert dict(status.labels) == {"a": "b"} and dict(status.annotations) == {"x": "y"}
    assert status.network.ip.startswith("10.250.")
    runtime.cri.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id))
    (item,) = runtime.cri.ListPodSandbox(cri.ListPodSandboxRequest(filter={"id": sandbox_id})).items
    assert item.state == cri.SANDBOX_NOTREADY
    runtime.cri.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id))
    gone = refused(lambda: runtime.cri.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id)))
    assert gone is grpc.StatusCode.NOT_FOUND
    assert not runtime.cri.ListPodSandbox(cri.ListPodSandboxRequest()).items


def test_stop_and_remove_of_what_is_not_there_succeed(runtime: Any, sandbox: Any) -> None:
    for name in ("0" * 64, sandbox[0], sandbox[0]):
        runtime.cri.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=name))
    for name in ("0" * 64, sandbox[0], sandbox[0]):
        runtime.cri.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=name))


def test_the_same_metadata_twice_is_refused(runtime: Any, sandbox: Any) -> None:
    assert refused(lambda: runtime.run_sandbox(sandbox[1])) is grpc.StatusCode.ALREADY_EXISTS
    again = cri.PodSandboxConfig()
    again.CopyFrom(sandbox[1])
    again.metadata.attempt = 1
    runtime.run_sandbox(again)


def test_filters_combine(runtime: Any) -> None:
    one, _ = runtime.run_sandbox(runtime.sandbox_config(labels={"app": "one", "tier": "x"}))
    two, _ = runtime.run_sandbox(runtime.sandbox_config(labels={"app": "two", "tier": "x"}))
    runtime.cri.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=two))

    def ids(**wanted: Any) -> set[str]:
        request = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(**wanted))
        return {item.id for item in runtime.cri.ListPodSandbox(request).items}

    assert ids(label_selector={"tier": "x"}) == {one, two}
    assert ids(label_selector={"tier": "x", "app": "one"}) == {one}
    assert ids(state={"state": cri.SANDBOX_NOTREADY}) == {two}
    assert ids(id=one[:12]) == {one}
    assert ids(id=one, label_selector={"app": "two"}) == set()


def test_an_unknown_runtime_handler_is_refused(runtime: Any) -> None:
    request = cri.RunPodSandboxRequest(config=runtime.sandbox_config(), runtime_handler="kata")
    assert refused(lambda: runtime.cri.RunPodSandbox(request)) is grpc.StatusCode.INVALID_ARGUMENT


def test_a_sandbox_that_fails_leaves_nothing(runtime: Any) -> None:
    config = runtime.sandbox_config()
    config.linux.sysctls["net.ipv4.no_such_thing"] = "1"
    with pytest.raises(grpc.RpcError) as caught:
        runtime.run_sandbox(config)
    assert "net.ipv4.no_such_thing" in caught.value.details()
    runtime.assert_clean()
    del config.linux.sysctls["net.ipv4.no_such_thing"]
    runtime.run_sandbox(config)  # its name is not reserved


def test_sysctls_of_the_pod_are_set_and_those_of_the_node_refused(runtime: Any) -> None:
    config = runtime.sandbox_config()
    config.linux.sysctls["net.ipv4.ip_unprivileged_port_start"] = "77"
    config.linux.sysctls["kernel.shm_rmid_forced"] = "1"
    sandbox = runtime.run_sandbox(config)
    container = runtime.run(sandbox)
    assert runtime.sh(container, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start") == "77"
    assert runtime.sh(container, "cat /proc/sys/kernel/shm_rmid_forced") == "1"
    config = runtime.sandbox_config()
    config.linux.sysctls["vm.swappiness"] = "1"
    assert refused(lambda: runtime.run_sandbox(config)) is grpc.StatusCode.INVALID_ARGUMENT


def test_hostname_dns_and_hosts(runtime: Any) -> None:
    dns = cri.DNSConfig(servers=["10.96.0.10"], searches=["a.local", "b.local"], options=["ndots:5"])
    sandbox = runtime.run_sandbox(runtime.sandbox_config(hostname="web-0", dns_config=dns))
    container = runtime.run(sandbox)
    assert runtime.sh(container, "hostname; cat /etc/hostname") == "web-0\nweb-0"
    expected = "search a.local b.local\nnameserver 10.96.0.10\noptions ndots:5"
    assert runtime.sh(container, "cat /etc/resolv.conf") == expected
    ip = runtime.cri.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox[0])).status.network.ip
    assert f"{ip}\tweb-0" in runtime.sh(container, "cat /etc/hosts")


def test_network_namespaces(runtime: Any) -> None:
    own = runtime.run_sandbox()
    host_config = runtime.sandbox_config()
    host_config.linux.security_context.namespace_options.network = cri.NODE
    host = runtime.run_sandbox(host_config)
    node = str(Path("/proc/self/ns/net").readlink())
    assert runtime.sh(runtime.run(own), "readlink /proc/self/ns/net") != node
    assert runtime.sh(runtime.run(host), "readlink /proc/self/ns/net") == node
    status = runtime.cri.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=host[0])).status
    assert status.network.ip == "" and status.linux.namespaces.options.network == cri.NODE


@pytest.mark.parametrize(("mode", "first"), [(cri.POD, "pause"), (cri.CONTAINER, "sleep"), (cri.NODE, "")])
def test_pid_namespaces(runtime: Any, mode: int, first: str) -> None:
    config = runtime.sandbox_config()
    config.linux.security_context.namespace_options.pid = mode
    sandbox = runtime.run_sandbox(config)

    def with_mode(container: cri.ContainerConfig) -> None:
        container.linux.security_context.namespace_options.pid = mode

    container = runtime.run(sandbox, "sleep", "1001", change=with_mode)
    other = runtime.run(sandbox, "sleep", "1002", name="other", change=with_mode)
    seen = runtime.sh(container, "cat /proc/1/cmdline; ps ax -o args")
    if first:
        assert seen.startswith(first)
    assert ("sleep 1002" in seen) == (mode != cri.CONTAINER)
    runtime.cri.StopContainer(cri.StopContainerRequest(container_id=other, timeout=0))
    assert runtime.status(container).state == cri.CONTAINER_RUNNING


def test_target_pid_namespace(runtime: Any) -> None:
    config = runtime.sandbox_config()
    config.linux.security_context.namespace_options.pid = cri.CONTAINER
    sandbox = runtime.run_sandbox(config)

    def own(container: cri.ContainerConfig) -> None:
        container.linux.security_context.namespace_options.pid = cri.CONTAINER

    target = runtime.run(sandbox, "sleep", "1001", change=own)

    def join(container: cri.ContainerConfig) -> None:
        container.linux.security_context.namespace_options.pid = cri.TARGET
        container.linux.security_context.namespace_options.target_id = target

    debugger = runtime.run(sandbox, "sleep", "1002", name="debugger", change=join)
    assert "sleep 1001" in runtime.sh(debugger, "ps ax -o args")


def test_shared_memory_is_the_pods(runtime: Any, sandbox: Any) -> None:
    writer, reader = runtime.run(sandbox), runtime.run(sandbox, name="reader")
    runtime.sh(writer, "echo shared > /dev/shm/note")
    assert runtime.sh(reader, "cat /dev/shm/note") == "shared"
    other = runtime.run(runtime.run_sandbox())
    assert runtime.sh(other, "ls /dev/shm") == ""


def test_stop_kills_the_containers(runtime: Any, sandbox: Any) -> None:
    container = runtime.run(sandbox, "sh", "-c", "trap '' TERM; sleep 1000")
    runtime.cri.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox[0]))
    status = runtime.status(container)
    assert status.state == cri.CONTAINER_EXITED and status.exit_code == 137
    request = cri.CreateContainerRequest(pod_sandbox_id=sandbox[0], config=runtime.container_config("true", name="no"))
    assert refused(lambda: runtime.cri.CreateContainer(request)) is grpc.StatusCode.FAILED_PRECONDITION


def test_events_tell_the_life_of_a_pod(runtime: Any) -> None:
    stream = runtime.cri.GetContainerEvents(cri.GetEventsRequest())
    runtime.channel.subscribe(lambda _: None)
    seen: list[tuple[str, int]] = []
    # The stream is live once the server has sent something: make sandboxes until it does.
    import threading

    sandboxes: list[Any] = []
    arrived = threading.Event()

    def make() -> None:
        while not arrived.wait(0.05):
            sandboxes.append(runtime.run_sandbox())

    maker = threading.Thread(target=make)
    maker.start()
    first = next(stream)
    arrived.set()
    maker.join()
    assert first.container_event_type in (cri.CONTAINER_CREATED_EVENT, cri.CONTAINER_STARTED_EVENT)
    sandbox = runtime.run_sandbox()
    container = runtime.run(sandbox, "true")
    runtime.exited(container)
    runtime.remove(sandbox[0])
    for event in stream:
        seen.append((event.container_id, event.container_event_type))
        if event.container_id == sandbox[0] and event.container_event_type == cri.CONTAINER_DELETED_EVENT:
            assert not event.HasField("pod_sandbox_status")
            break
    stream.cancel()
    assert [kind for name, kind in seen if name == container] == [0, 1, 2, 3]
    assert [kind for name, kind in seen if name == sandbox[0]] == [0, 1, 2, 3]


def test_a_call_that_is_cancelled_at_any_time_leaves_nothing(runtime: Any) -> None:
    for delay_ms in range(12):
        config = runtime.sandbox_config()
        call = runtime.cri.RunPodSandbox.future(cri.RunPodSandboxRequest(config=config))
        time.sleep(delay_ms / 1000)
        call.cancel()
    time.sleep(0.3)
    runtime.remove_all()
    runtime.assert_clean()
