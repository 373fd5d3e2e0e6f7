"""CNI 1.0 with the reference plugins of Debian, and with plugins that misbehave."""

import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cri_runtime.network import CNINetwork, PodIdentity
from cri_runtime.network.cni_config import addresses_of, find_config, load_config, request_of
from cri_runtime.network.errors import ConfigInvalid, PluginFailed

PLUGINS = Path("/usr/lib/cni")
POD = PodIdentity("default", "kubia", "uid-1")

needs_plugins = [
    pytest.mark.root,
    pytest.mark.skipif(not (PLUGINS / "bridge").exists(), reason="containernetworking-plugins is not installed"),
]


@dataclass(frozen=True)
class Mapping:
    """CRI's PortMapping, by shape."""

    container_port: int
    host_port: int
    protocol: int = 0
    host_ip: str = ""


def write_config(directory: Path, *plugins: dict[str, Any], version: str = "1.0.0", **more: Any) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / "10-test.conflist"
    path.write_text(json.dumps({"cniVersion": version, "name": "ktest", "plugins": list(plugins), **more}))
    return path


def plugin(directory: Path, name: str, script: str) -> None:
    """A plugin of our own."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def bridge_config(tmp_path: Path) -> Path:
    """The reference bridge with host-local addresses and host ports."""
    ipam = {"type": "host-local", "dataDir": f"{tmp_path}/ipam", "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "kcni0", "isGateway": True}
    return write_config(
        tmp_path / "conf",
        {**bridge, "ipam": {**ipam, "ranges": [[{"subnet": "10.250.2.0/24"}]]}},
        {"type": "portmap", "capabilities": {"portMappings": True}, "backend": "iptables"},
    )


@pytest.fixture
async def network(tmp_path: Path, bridge_config: Path, node: None) -> CNINetwork:
    made = CNINetwork(bridge_config.parent, PLUGINS, tmp_path / "network")
    await made.setup()
    return made


class TestReferencePlugins:
    pytestmark = needs_plugins

    async def test_a_pod_comes_and_goes(
        self, network: CNINetwork, make_pod: Callable[[], Any], tmp_path: Path, devices: Callable[[], set[str]]
    ) -> None:
        pod = make_pod()
        attachment = await network.attach(pod.sandbox_id, pod.netns, POD)
        assert (attachment.ips, attachment.interface) == (["10.250.2.2"], "eth0")
        links = {link["ifname"]: link for link in json.loads(pod.run("ip", "-j", "address"))}
        assert links["eth0"]["address"] == attachment.mac
        assert "UP" in links["lo"]["flags"]
        with pod.socket() as server:
            server.bind(("", 80))
            server.listen()
            socket.create_connection(("10.250.2.2", 80), 5).close()
        await network.check(pod.sandbox_id)
        for _ in range(2):
            await network.detach(pod.sandbox_id, pod.netns)
        assert devices() == {"lo", "kcni0"}
        assert [path.name for path in (tmp_path / "ipam/ktest").glob("10.*")] == []
        assert list((tmp_path / "network/cni").iterdir()) == []

    async def test_host_ports_lead_to_the_pod(self, network: CNINetwork, make_pod: Callable[[], Any]) -> None:
        pod = make_pod()
        await network.attach(pod.sandbox_id, pod.netns, POD, [Mapping(80, 8080), Mapping(81, 0)])
        with pod.socket() as server:
            server.bind(("", 80))
            server.listen()
            socket.create_connection(("10.250.2.1", 8080), 5).close()
        await network.detach(pod.sandbox_id, pod.netns)

    async def test_check_tells_what_was_broken(self, network: CNINetwork, make_pod: Callable[[], Any]) -> None:
        pod = make_pod()
        await network.attach(pod.sandbox_id, pod.netns, POD)
        pod.run("ip", "address", "flush", "dev", "eth0")
        with pytest.raises(PluginFailed, match="CHECK"):
            await network.check(pod.sandbox_id)
        await network.detach(pod.sandbox_id, pod.netns)

    async def test_a_restarted_daemon_cleans_up_after_pods_that_are_gone(
        self, network: CNINetwork, make_pod: Callable[[], Any], bridge_config: Path, tmp_path: Path
    ) -> None:
        alive, dead = make_pod(), make_pod()
        await network.attach(alive.sandbox_id, alive.netns, POD)
        await network.attach(dead.sandbox_id, dead.netns, POD)
        dead.process.kill()
        dead.process.wait()
        bridge_config.unlink()  # each pod is cleaned up with the configuration it was attached with
        successor = CNINetwork(bridge_config.parent, PLUGINS, tmp_path / "network")
        await successor.setup()
        await successor.reconcile({alive.sandbox_id})
        assert [path.name for path in (tmp_path / "ipam/ktest").glob("10.*")] == ["10.250.2.2"]

    async def test_a_failing_second_plugin_undoes_the_first(
        self, make_pod: Callable[[], Any], bridge_config: Path, tmp_path: Path, devices: Callable[[], set[str]]
    ) -> None:
        config = json.loads(bridge_config.read_text())
        write_config(bridge_config.parent, config["plugins"][0], {"type": "broken"})
        (tmp_path / "bin").mkdir()
        for real in ("bridge", "host-local"):
            (tmp_path / "bin" / real).symlink_to(PLUGINS / real)
        error = '{"cniVersion": "1.0.0", "code": 100, "msg": "no luck", "details": "today"}'
        plugin(tmp_path / "bin", "broken", f"[ $CNI_COMMAND = DEL ] && exit 0\necho '{error}'\nexit 1")
        network = CNINetwork(bridge_config.parent, tmp_path / "bin", tmp_path / "network")
        await network.setup()
        pod = make_pod()
        with pytest.raises(PluginFailed, match=r"CNI plugin broken failed to ADD: no luck \(today\)") as raised:
            await network.attach(pod.sandbox_id, pod.netns, POD)
        assert raised.value.code == 100
        assert devices() == {"lo", "kcni0"}
        assert list((tmp_path / "network/cni").iterdir()) == []


@pytest.mark.root
async def test_plugins_get_what_the_specification_says(make_pod: Callable[[], Any], tmp_path: Path, node: None) -> None:
    capabilities = {"portMappings": True, "bandwidth": True}
    write_config(tmp_path / "conf", {"type": "a", "x": 1, "capabilities": capabilities}, {"type": "b"})
    dump = f'env > "{tmp_path}/$CNI_COMMAND.$NAME.env"; cat > "{tmp_path}/$CNI_COMMAND.$NAME.json"'
    plugin(tmp_path / "bin", "a", f'NAME=a; {dump}; [ $CNI_COMMAND = ADD ] && echo \'{{"cniVersion": "1.0.0"}}\' || :')
    result = {"cniVersion": "1.0.0", "interfaces": [], "ips": [{"address": "10.9.9.9/24"}]}
    plugin(tmp_path / "bin", "b", f"NAME=b; {dump}; [ $CNI_COMMAND = ADD ] && echo '{json.dumps(result)}' || :")
    network = CNINetwork(tmp_path / "conf", tmp_path / "bin", tmp_path / "network")
    await network.setup()
    pod = make_pod()
    attachment = await network.attach(pod.sandbox_id, pod.netns, POD, [Mapping(80, 8080, 1, "127.0.0.1")])
    assert attachment.ips == ["10.9.9.9"]
    await network.detach(pod.sandbox_id)

    environment = dict(line.split("=", 1) for line in (tmp_path / "ADD.a.env").read_text().splitlines())
    assert environment["CNI_CONTAINERID"] == pod.sandbox_id
    assert environment["CNI_NETNS"] == str(pod.netns)
    assert environment["CNI_IFNAME"] == "eth0"
    assert "K8S_POD_NAME=kubia" in environment["CNI_ARGS"].split(";")
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "udp", "hostIP": "127.0.0.1"}
    assert json.loads((tmp_path / "ADD.a.json").read_text()) == {
        "cniVersion": "1.0.0",
        "name": "ktest",
        "type": "a",
        "x": 1,
        "runtimeConfig": {"portMappings": [mapping]},
    }
    assert json.loads((tmp_path / "ADD.b.json").read_text())["prevResult"] == {"cniVersion": "1.0.0"}
    assert json.loads((tmp_path / "DEL.a.json").read_text())["prevResult"] == result
    assert "CNI_NETNS=\n" in (tmp_path / "DEL.a.env").read_text()


@pytest.mark.root
@pytest.mark.parametrize(
    ("script", "complaint"),
    [("echo oops >&2; exit 3", "oops"), ("exit 3", "exit code 3"), ("echo no json", "no JSON")],
)
async def test_a_plugin_that_breaks_the_rules_is_named(
    make_pod: Callable[[], Any], tmp_path: Path, script: str, complaint: str
) -> None:
    write_config(tmp_path / "conf", {"type": "odd"})
    plugin(tmp_path / "bin", "odd", f"[ $CNI_COMMAND = DEL ] && exit 0\n{script}")
    network = CNINetwork(tmp_path / "conf", tmp_path / "bin", tmp_path / "network")
    await network.setup()
    pod = make_pod()
    with pytest.raises(PluginFailed, match=f"odd failed to ADD: .*{complaint}"):
        await network.attach(pod.sandbox_id, pod.netns, POD)


@pytest.mark.root
async def test_a_plugin_that_is_not_there_is_named(make_pod: Callable[[], Any], tmp_path: Path) -> None:
    write_config(tmp_path / "conf", {"type": "nowhere"})
    network = CNINetwork(tmp_path / "conf", tmp_path / "bin", tmp_path / "network")
    await network.setup()
    pod = make_pod()
    with pytest.raises(PluginFailed, match="bin/nowhere: No such file"):
        await network.attach(pod.sandbox_id, pod.netns, POD)


def test_without_a_configuration_the_network_is_not_ready(tmp_path: Path) -> None:
    network = CNINetwork(tmp_path, PLUGINS, tmp_path / "network")
    status, reason, message = network.ready()
    assert (status, reason) == (False, "NetworkPluginNotReady")
    assert str(tmp_path) in message
    write_config(tmp_path, {"type": "bridge"})
    assert network.ready() == (True, "", "")


def test_the_first_configuration_by_name_counts(tmp_path: Path) -> None:
    write_config(tmp_path, {"type": "listed"})
    (tmp_path / "05-single.conf").write_text('{"cniVersion": "0.4.0", "name": "one", "type": "single"}')
    (tmp_path / "00-notes.txt").write_text("not a configuration")
    config = find_config(tmp_path)
    assert config is not None
    assert (config.name, config.version, config.plugins[0]["type"]) == ("one", "0.4.0", "single")


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"name": "n", "plugins": []}', '{"name": "n", "plugins": [{"type": "../evil"}]}',
     '{"name": "n", "cniVersion": "9.9", "plugins": [{"type": "t"}]}'],
)  # fmt: skip
def test_a_bad_configuration_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.conflist"
    path.write_text(text)
    with pytest.raises(ConfigInvalid, match=str(path)):
        load_config(path)


def test_only_declared_capabilities_reach_a_plugin(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path, {"type": "t", "capabilities": {"portMappings": False}}))
    assert "runtimeConfig" not in request_of(config, config.plugins[0], {"portMappings": []}, None)


def test_the_pods_addresses_are_those_inside_it_ipv4_first() -> None:
    result = {
        "interfaces": [{"name": "br", "mac": "1"}, {"name": "eth0", "mac": "2", "sandbox": "/netns"}],
        "ips": [
            {"address": "10.0.0.1/24", "interface": 0},
            {"address": "fd00::2/64", "interface": 1},
            {"address": "10.0.0.2/24", "interface": 1},
        ],
    }
    assert addresses_of(result) == (["10.0.0.2", "fd00::2"], "eth0", "2")
