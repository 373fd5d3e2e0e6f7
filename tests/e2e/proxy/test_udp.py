"""Datagrams through the proxy: DNS and its like."""

import asyncio
import contextlib
import threading

import pytest
import yaml

pytestmark = pytest.mark.root
VIP = "10.96.0.53"


class Pod:
    """Answers every datagram with its name and the datagram, until closed."""

    def __init__(self, ns, address, port=5353):
        self.sock = ns.datagram_socket(address, port)
        self._name = address.encode()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        self.sock.settimeout(None)
        while True:
            datagram, client = self.sock.recvfrom(1 << 16)
            if datagram == b"stop":
                self.sock.close()
                return
            self.sock.sendto(self._name + b" " + datagram, client)

    def close(self, ns):
        with contextlib.closing(ns.datagram_socket()) as sock:
            sock.sendto(b"stop", self.sock.getsockname())
        self._thread.join(10)


@pytest.fixture
def start_pod(ns):
    pods = []

    def start(address):
        pods.append(Pod(ns, address))
        return pods[-1]

    yield start
    for pod in pods:
        if pod.sock.fileno() >= 0:
            pod.close(ns)


@pytest.fixture
def dns(service, slices):
    """The objects of a UDP service on these pods."""

    def make(*addresses, **spec):
        ports = [{"port": 53, "protocol": "UDP", "nodePort": 30053}]
        endpoints = slices(*addresses, name="dns", port=5353)
        endpoints["ports"][0]["protocol"] = "UDP"
        return service("dns", clusterIP=VIP, ports=ports, type="NodePort", **spec), endpoints

    return make


async def ask(sock, address, datagram):
    def call():
        sock.sendto(datagram, address)
        return sock.recvfrom(1 << 16)

    return await asyncio.to_thread(call)


async def test_datagrams_are_answered_from_the_address_that_was_asked(ns, start_pod, start_proxy, dns):
    start_pod("10.244.0.2")
    await start_proxy(*dns("10.244.0.2"))
    with contextlib.closing(ns.datagram_socket()) as client:
        for address in ((VIP, 53), ("127.0.0.7", 30053), ("127.0.0.8", 30053)):
            assert await ask(client, address, b"hello") == (b"10.244.0.2 hello", address)
        big = bytes(60_000)
        assert (await ask(client, (VIP, 53), big))[0] == b"10.244.0.2 " + big


async def test_a_client_keeps_its_pod_and_clients_are_spread(ns, start_pod, start_proxy, dns):
    for number in (2, 3):
        start_pod(f"10.244.0.{number}")
    proxy = await start_proxy(*dns("10.244.0.2", "10.244.0.3"))
    answers = []
    for _ in range(4):
        with contextlib.closing(ns.datagram_socket()) as client:
            own = {(await ask(client, (VIP, 53), b"x"))[0] for _ in range(3)}
        assert len(own) == 1
        answers += own
    assert sorted(answers) == [b"10.244.0.2 x"] * 2 + [b"10.244.0.3 x"] * 2
    (listener,) = [each for each in await proxy.listeners() if each.role == "ClusterIP"]
    assert (listener.protocol, listener.connections_accepted) == ("UDP", 4)
    assert [backend.connections_open for backend in listener.backends] == [2, 2]


async def test_flow_to_a_removed_pod_moves_to_another_at_once(ns, start_pod, start_proxy, dns, eventually):
    """The stale conntrack entry, which this proxy does not have."""
    start_pod("10.244.0.2")
    start_pod("10.244.0.3")
    proxy = await start_proxy(*dns("10.244.0.2"))
    with contextlib.closing(ns.datagram_socket()) as client:
        assert (await ask(client, (VIP, 53), b"x"))[0] == b"10.244.0.2 x"
        new = proxy.folder / "new.yaml"
        new.write_text(yaml.safe_dump_all(dns("10.244.0.3")))
        new.replace(proxy.file)

        async def moved():
            return (await ask(client, (VIP, 53), b"x"))[0] == b"10.244.0.3 x"

        await eventually(moved)


async def test_flow_to_a_dead_pod_moves_to_another(ns, start_pod, start_proxy, dns, eventually):
    pods = {address.encode(): start_pod(address) for address in ("10.244.0.2", "10.244.0.3")}
    await start_proxy(*dns("10.244.0.2", "10.244.0.3"))
    with contextlib.closing(ns.datagram_socket()) as client:
        first = (await ask(client, (VIP, 53), b"x"))[0].split()[0]
        pods[first].close(ns)
        client.settimeout(0.5)

        async def moved():
            with contextlib.suppress(TimeoutError):  # the datagram that brought the bad news is lost
                return (await ask(client, (VIP, 53), b"x"))[0].split()[0] != first
            return False

        await eventually(moved)


async def test_the_same_port_serves_udp_and_tcp(ns, pods, start_pod, start_proxy, dns):
    async def tcp(reader, writer):
        writer.write(b"tcp")

    start_pod("10.244.0.2")
    await pods("10.244.0.2", tcp, port=5353)
    both, endpoints = dns("10.244.0.2")
    both["spec"]["ports"][0]["name"] = "udp"
    both["spec"]["ports"].append({"name": "tcp", "port": 53, "protocol": "TCP", "nodePort": 30053})
    endpoints["ports"] = [{"name": "udp", "port": 5353, "protocol": "UDP"}, {"name": "tcp", "port": 5353}]
    await start_proxy(both, endpoints)
    with contextlib.closing(ns.datagram_socket()) as client:
        assert (await ask(client, (VIP, 53), b"x"))[0] == b"10.244.0.2 x"
    assert await ns.ask(VIP, 53) == b"tcp"
