"""The built-in network, against the kernel: packets decide."""

import asyncio
import json
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cri_runtime.linux.netlink import Netlink, add_veth, get_link, parse_link
from cri_runtime.network import BridgeNetwork, PodIdentity
from cri_runtime.network.bridge import device_of
from cri_runtime.network.errors import AddressesExhausted, DeviceConflict, HostPortTaken, KernelRefused, NetworkError

pytestmark = pytest.mark.root

POD = PodIdentity("default", "kubia", "uid-1")
Pod = Any
"""A namespace made by the fixture ``make_pod``."""


@dataclass(frozen=True)
class Mapping:
    """CRI's PortMapping, by shape."""

    container_port: int
    host_port: int
    protocol: int = 0
    host_ip: str = ""


def listener(pod: Pod, port: int) -> socket.socket:
    made = pod.socket()
    made.bind(("", port))
    made.listen()
    return made


def connect(made: socket.socket, host: str, port: int, accepting: socket.socket) -> str:
    """Connect and return the address that the other side sees."""
    with made:
        made.settimeout(5)
        made.connect((host, port))
        connection, peer = accepting.accept()
        connection.close()
        return str(peer[0])


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def nft_table() -> str:
    return run("nft", "list", "ruleset")


async def test_a_pod_reaches_the_node_and_another_pod_at_once(
    network: BridgeNetwork, make_pod: Callable[[], Pod]
) -> None:
    one, two = make_pod(), make_pod()
    first = await network.attach(one.sandbox_id, one.netns, POD)
    second = await network.attach(two.sandbox_id, two.netns, POD)
    assert (first.ips, second.ips) == (["10.250.1.2"], ["10.250.1.3"])
    with listener(two, 80) as server:
        assert connect(one.socket(), "10.250.1.3", 80, server) == "10.250.1.2"
        assert connect(socket.socket(), "10.250.1.3", 80, server) == "10.250.1.1"
        assert connect(two.socket(), "127.0.0.1", 80, server) == "127.0.0.1"
    with socket.create_server(("10.250.1.1", 0)) as server:
        assert connect(one.socket(), *server.getsockname(), server) == "10.250.1.2"


async def test_the_attachment_tells_what_the_pod_has(network: BridgeNetwork, make_pod: Callable[[], Pod]) -> None:
    pod = make_pod()
    attachment = await network.attach(pod.sandbox_id, pod.netns, POD)
    links = {link["ifname"]: link for link in json.loads(pod.run("ip", "-j", "address"))}
    assert set(links) == {"lo", attachment.interface}
    assert links["eth0"]["address"] == attachment.mac
    assert links["eth0"]["mtu"] == 1500
    assert [a["local"] for a in links["eth0"]["addr_info"] if a["family"] == "inet"] == attachment.ips
    assert "UP" in links["lo"]["flags"]
    assert json.loads(pod.run("ip", "-j", "route", "show", "default"))[0]["gateway"] == "10.250.1.1"


async def test_a_pod_leaves_the_node_under_the_nodes_address(
    network: BridgeNetwork, make_pod: Callable[[], Pod], node: None
) -> None:
    pod, outside = make_pod(), make_pod()
    await network.attach(pod.sandbox_id, pod.netns, POD)
    run("ip", "link", "add", "up0", "type", "veth", "peer", "up1", "netns", str(outside.process.pid))
    run("ip", "address", "add", "198.51.100.1/24", "dev", "up0")
    run("ip", "link", "set", "up0", "up")
    outside.run("ip", "address", "add", "198.51.100.2/24", "dev", "up1")
    outside.run("ip", "link", "set", "up1", "up")
    with listener(outside, 80) as server:
        assert connect(pod.socket(), "198.51.100.2", 80, server) == "198.51.100.1"


@pytest.mark.parametrize("host", ["127.0.0.1", "10.250.1.1"])
async def test_a_host_port_leads_to_the_pod_from_this_machine(
    network: BridgeNetwork, make_pod: Callable[[], Pod], host: str
) -> None:
    pod = make_pod()
    await network.attach(pod.sandbox_id, pod.netns, POD, [Mapping(80, 8080)])
    with listener(pod, 80) as server:
        assert connect(socket.socket(), host, 8080, server) == "10.250.1.1"


async def test_a_host_port_leads_to_the_pod_from_pods_even_its_own(
    network: BridgeNetwork, make_pod: Callable[[], Pod]
) -> None:
    pod, other = make_pod(), make_pod()
    await network.attach(pod.sandbox_id, pod.netns, POD, [Mapping(80, 8080)])
    await network.attach(other.sandbox_id, other.netns, POD)
    with listener(pod, 80) as server:
        assert connect(other.socket(), "10.250.1.1", 8080, server) == "10.250.1.1"
        assert connect(pod.socket(), "10.250.1.1", 8080, server) == "10.250.1.1"


async def test_a_udp_host_port_on_one_address_is_open_only_there(
    network: BridgeNetwork, make_pod: Callable[[], Pod]
) -> None:
    pod = make_pod()
    await network.attach(pod.sandbox_id, pod.netns, POD, [Mapping(53, 5353, protocol=1, host_ip="127.0.0.1")])
    with pod.socket(socket.SOCK_DGRAM) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        server.bind(("", 53))
        client.settimeout(5)
        client.connect(("127.0.0.1", 5353))
        client.send(b"question")
        data, peer = server.recvfrom(100)
        server.sendto(b"answer", peer)
        assert (data, client.recv(100)) == (b"question", b"answer")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere:
        elsewhere.connect(("10.250.1.1", 5353))
        elsewhere.send(b"question")
        with pytest.raises(ConnectionRefusedError):
            elsewhere.recv(100)


async def test_a_udp_client_that_never_stops_follows_the_port_to_the_next_pod(
    network: BridgeNetwork, make_pod: Callable[[], Pod]
) -> None:
    first, second = make_pod(), make_pod()
    mapping = Mapping(53, 5353, protocol=1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect(("127.0.0.1", 5353))
        client.send(b"nobody is there yet")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)
        for pod in (first, second):
            await network.attach(pod.sandbox_id, pod.netns, POD, [mapping])
            with pod.socket(socket.SOCK_DGRAM) as server:
                server.bind(("", 53))
                client.send(b"question")
                data, peer = server.recvfrom(100)
                server.sendto(b"answer", peer)
                assert (data, client.recv(100)) == (b"question", b"answer")
            await network.detach(pod.sandbox_id)


async def test_a_pod_cannot_reach_the_nodes_loopback(network: BridgeNetwork, make_pod: Callable[[], Pod]) -> None:
    pod = make_pod()
    await network.attach(pod.sandbox_id, pod.netns, POD)
    pod.run("ip", "address", "del", "127.0.0.1/8", "dev", "lo")
    pod.run("sysctl", "-qw", "net.ipv4.conf.eth0.route_localnet=1")
    pod.run("ip", "route", "flush", "table", "local", "127.0.0.0/8")
    pod.run("ip", "route", "add", "127.0.0.0/8", "via", "10.250.1.1")
    with socket.create_server(("127.0.0.1", 0)) as server, pod.socket() as client:
        server.settimeout(0.3)
        client.setblocking(False)
        client.connect_ex(server.getsockname())
        with pytest.raises(TimeoutError):
            server.accept()


async def test_service_addresses_are_no_host_ports(network: BridgeNetwork, make_pod: Callable[[], Pod]) -> None:
    pod = make_pod()
    run("ip", "route", "add", "local", "10.96.0.0/16", "dev", "lo")
    await network.attach(pod.sandbox_id, pod.netns, POD, [Mapping(80, 8080)])
    with socket.create_server(("10.96.0.7", 8080)) as service:
        assert connect(socket.socket(), "10.96.0.7", 8080, service) == "10.96.0.7"


async def test_a_taken_host_port_is_refused_and_leaves_nothing(
    devices: Callable[[], set[str]], network: BridgeNetwork, make_pod: Callable[[], Pod], tmp_path: Path
) -> None:
    pod, other = make_pod(), make_pod()
    await network.attach(pod.sandbox_id, pod.netns, POD, [Mapping(80, 8080)])
    with pytest.raises(HostPortTaken, match=f"8080/TCP belongs to sandbox {pod.sandbox_id[:13]}"):
        await network.attach(other.sandbox_id, other.netns, POD, [Mapping(81, 8080)])
    assert [link.name for link in (tmp_path / "network/addresses").iterdir()] == ["10.250.1.2"]
    await network.aclose()
    assert device_of(other.sandbox_id) not in devices()


@pytest.mark.parametrize("mapping", [Mapping(80, 70000), Mapping(0, 80), Mapping(80, 80, host_ip="::1")])
async def test_an_impossible_mapping_is_refused(
    network: BridgeNetwork, make_pod: Callable[[], Pod], mapping: Mapping
) -> None:
    pod = make_pod()
    with pytest.raises(NetworkError, match="port mapping"):
        await network.attach(pod.sandbox_id, pod.netns, POD, [mapping])


async def test_detach_frees_everything_and_may_be_repeated(
    devices: Callable[[], set[str]], network: BridgeNetwork, make_pod: Callable[[], Pod], tmp_path: Path
) -> None:
    pod = make_pod()
    await network.attach(pod.sandbox_id, pod.netns, POD, [Mapping(80, 8080)])
    for _ in range(2):
        await network.detach(pod.sandbox_id, pod.netns)
    assert "8080" not in nft_table()
    assert not any((tmp_path / "network/addresses").iterdir())
    assert not any((tmp_path / "network/hostports").iterdir())
    await network.aclose()
    assert devices() == {"lo", "ktest0"}


async def test_many_pods_come_and_go_at_once(
    devices: Callable[[], set[str]], network: BridgeNetwork, make_pod: Callable[[], Pod], tmp_path: Path
) -> None:
    pods = [make_pod() for _ in range(12)]
    attached = await asyncio.gather(*(network.attach(pod.sandbox_id, pod.netns, POD) for pod in pods))
    assert len({attachment.ips[0] for attachment in attached}) == 12
    await asyncio.gather(*(network.detach(pod.sandbox_id) for pod in pods))
    await network.aclose()
    assert devices() == {"lo", "ktest0"}
    assert not any((tmp_path / "network/addresses").iterdir())


async def test_a_restarted_daemon_adopts_pods_and_frees_what_a_crash_left(
    devices: Callable[[], set[str]],
    network: BridgeNetwork,
    make_network: Callable[[], BridgeNetwork],
    make_pod: Callable[[], Pod],
    tmp_path: Path,
) -> None:
    alive, dead, half_made = make_pod(), make_pod(), make_pod()
    await network.attach(alive.sandbox_id, alive.netns, POD, [Mapping(80, 8080)])
    await network.attach(dead.sandbox_id, dead.netns, POD, [Mapping(80, 8081)])
    with Netlink() as kernel:  # killed after the pair was made, before anything else
        bridge = parse_link(kernel.request(get_link("ktest0"))[0]).index
        kernel.request(add_veth(device_of(half_made.sandbox_id), bridge, 1500, "eth9", b"\2\0\0\0\0\1"))
    successor = make_network()
    await successor.setup()
    await successor.reconcile({alive.sandbox_id})
    with listener(alive, 80) as server:
        assert connect(socket.socket(), "127.0.0.1", 8080, server) == "10.250.1.1"
    assert "8081" not in nft_table()
    assert [link.name for link in (tmp_path / "network/addresses").iterdir()] == ["10.250.1.2"]
    await successor.aclose()
    assert {name for name in devices() if name.startswith("veth")} == {device_of(alive.sandbox_id)}


async def test_an_interrupted_attach_can_be_repeated(network: BridgeNetwork, make_pod: Callable[[], Pod]) -> None:
    pod, same_sandbox = make_pod(), make_pod()
    first = await network.attach(pod.sandbox_id, pod.netns, POD)
    again = await network.attach(pod.sandbox_id, same_sandbox.netns, POD)
    assert first.ips == again.ips
    with listener(same_sandbox, 80) as server:
        connect(socket.socket(), again.ips[0], 80, server)


async def test_setup_restores_a_table_that_somebody_flushed(
    network: BridgeNetwork, make_pod: Callable[[], Pod]
) -> None:
    pod = make_pod()
    await network.attach(pod.sandbox_id, pod.netns, POD, [Mapping(80, 8080)])
    before = nft_table()
    run("nft", "flush", "ruleset")
    await network.setup()
    assert nft_table() == before


async def test_teardown_leaves_the_node_as_it_was(
    devices: Callable[[], set[str]], make_network: Callable[[], BridgeNetwork], tmp_path: Path
) -> None:
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    forwarding.write_text("0")
    network = make_network()
    assert network.ready()[0] is False
    await network.setup()
    assert network.ready() == (True, "", "")
    assert forwarding.read_text() == "1\n"
    await network.teardown()
    await network.teardown()
    await network.aclose()
    assert (devices(), nft_table(), forwarding.read_text()) == ({"lo"}, "", "0\n")


async def test_a_foreign_device_of_the_bridges_name_is_refused_until_it_is_gone(
    make_network: Callable[[], BridgeNetwork], make_pod: Callable[[], Pod], tmp_path: Path
) -> None:
    run("ip", "link", "add", "ktest0", "type", "veth")
    (tmp_path / "network/addresses").mkdir(parents=True)
    (tmp_path / "network/addresses/10.250.1.9").symlink_to("gone")
    network, pod = make_network(), make_pod()
    with pytest.raises(DeviceConflict, match="ktest0 is no bridge"):
        await network.setup()
    assert network.ready()[1] == "NetworkPluginNotReady"
    await network.reconcile(set())
    with pytest.raises(DeviceConflict):
        await network.attach(pod.sandbox_id, pod.netns, POD)
    run("ip", "link", "del", "ktest0")
    await network.attach(pod.sandbox_id, pod.netns, POD)
    assert network.ready() == (True, "", "")
    assert not (tmp_path / "network/addresses/10.250.1.9").is_symlink()
    await network.aclose()


async def test_a_missing_namespace_is_an_error_that_names_it(network: BridgeNetwork, tmp_path: Path) -> None:
    with pytest.raises(KernelRefused, match="no-such-netns"):
        await network.attach("a" * 64, tmp_path / "no-such-netns", POD)
    assert not any((tmp_path / "network/addresses").iterdir())


async def test_the_last_address_gone_is_an_error_that_says_so(
    node: None, tmp_path: Path, make_pod: Callable[[], Pod]
) -> None:
    network = BridgeNetwork("ktest0", "10.250.1.0/30", tmp_path / "network")
    await network.setup()
    one, two = make_pod(), make_pod()
    await network.attach(one.sandbox_id, one.netns, POD)
    with pytest.raises(AddressesExhausted, match="remove pods"):
        await network.attach(two.sandbox_id, two.netns, POD)
    await network.aclose()
