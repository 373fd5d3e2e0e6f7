"""What is listened on, and what happens when services, endpoints and pods come and go."""

import asyncio
import contextlib

import pytest
import yaml

pytestmark = pytest.mark.root
VIP = "10.96.0.10"


def named(name):
    async def handler(reader, writer):
        writer.write(name.encode())
        await writer.drain()
        await reader.read()

    return handler


async def echo(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


def rewrite(proxy, *objects):
    """Replace the file as an editor does."""
    new = proxy.folder / "new.yaml"
    new.write_text(yaml.safe_dump_all(objects))
    new.replace(proxy.file)


async def refused(ns, address, port):
    try:
        _, writer = await ns.connect(address, port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def test_cluster_ip_node_port_and_load_balancer_all_lead_to_the_pods(ns, pods, start_proxy, service, slices):
    await pods("10.244.0.2", named("pod"))
    web = service(
        type="LoadBalancer",
        ports=[{"port": 80, "targetPort": 8080, "nodePort": 30080}],
        externalIPs=["192.0.2.7"],
        status={"loadBalancer": {"ingress": [{"ip": "10.98.0.1"}]}},
    )
    proxy = await start_proxy(web, slices("10.244.0.2"))
    ways = [(VIP, 80), ("10.98.0.1", 80), ("192.0.2.7", 80), ("127.0.0.1", 30080)]
    assert [await ns.ask(*way) for way in ways] == [b"pod"] * 4
    found = {(each.role, each.address): each.connections_accepted for each in await proxy.listeners()}
    assert found == {
        ("ClusterIP", f"{VIP}:80"): 1,
        ("ExternalIP", "192.0.2.7:80"): 1,
        ("LoadBalancer", "10.98.0.1:80"): 1,
        ("NodePort", "0.0.0.0:30080"): 1,
    }


async def test_unserved_port_and_service_without_endpoints_are_refused(ns, pods, start_proxy, service, slices):
    await pods("10.244.0.2", named("pod"))
    empty = service("empty", clusterIP="10.96.0.11")
    proxy = await start_proxy(service(), slices("10.244.0.2"), empty)
    assert await refused(ns, VIP, 81)
    assert await refused(ns, "10.96.0.11", 80)
    errors = {each.service: each.error for each in await proxy.listeners()}
    assert errors == {"web": "", "empty": "no ready endpoints: connections are refused"}


async def test_a_pod_that_refuses_is_passed_over(ns, pods, start_proxy, service, slices):
    await pods("10.244.0.2", named("alive"))
    await start_proxy(service(), slices("10.244.0.2", "10.244.0.3", "10.244.0.4"))
    assert [await ns.ask(VIP, 80) for _ in range(6)] == [b"alive"] * 6


async def test_when_every_pod_refuses_the_client_is_reset(ns, start_proxy, service, slices):
    await start_proxy(service(), slices("10.244.0.3", "10.244.0.4"))
    with pytest.raises(ConnectionResetError):
        await ns.ask(VIP, 80)


async def test_a_pod_that_dies_is_replaced_for_new_connections(ns, pods, start_proxy, service, slices):
    dying = await pods("10.244.0.2", named("first"))
    await pods("10.244.0.3", named("second"))
    await start_proxy(service(), slices("10.244.0.2", "10.244.0.3"))
    assert {await ns.ask(VIP, 80) for _ in range(4)} == {b"first", b"second"}
    dying.close()
    assert {await ns.ask(VIP, 80) for _ in range(6)} == {b"second"}


async def test_live_connections_outlive_endpoint_changes(ns, pods, start_proxy, service, slices, eventually):
    await pods("10.244.0.2", echo)
    await pods("10.244.0.3", named("new"))
    proxy = await start_proxy(service(), slices("10.244.0.2"))
    reader, writer = await ns.connect(VIP, 80)
    writer.write(b"one")
    assert await reader.readexactly(3) == b"one"

    async def backends():
        (listener,) = await proxy.listeners()
        return {each.address: (each.ready, each.connections_open) for each in listener.backends}

    async def is_draining():
        return await backends() == {"10.244.0.2:8080": (False, 1), "10.244.0.3:8080": (True, 0)}

    rewrite(proxy, service(), slices("10.244.0.3"))
    await eventually(is_draining)
    assert {await ns.ask(VIP, 80) for _ in range(4)} == {b"new"}
    writer.write(b"two")
    assert await reader.readexactly(3) == b"two"

    rewrite(proxy)  # even the service goes

    async def is_gone():
        return await refused(ns, VIP, 80)

    await eventually(is_gone)
    writer.write(b"three")
    writer.write_eof()
    assert await reader.read() == b"three"
    writer.close()


async def test_listeners_come_and_go_with_their_services(ns, pods, start_proxy, service, slices, eventually):
    await pods("10.244.0.2", named("pod"))
    proxy = await start_proxy()
    names = [f"s{number}" for number in range(100)]

    def objects(chosen):
        for name in chosen:
            yield service(name, clusterIP=f"10.96.1.{name[1:]}")
            yield slices("10.244.0.2", name=name)

    for chosen in (names, names[::2], names[1::2]):
        rewrite(proxy, *objects(chosen))

        async def in_force(chosen=chosen):
            return {each.service for each in await proxy.listeners()} == set(chosen)

        await eventually(in_force)
        for name in names[:10]:
            assert await refused(ns, f"10.96.1.{name[1:]}", 80) == (name not in chosen)


async def test_a_taken_address_harms_nobody_else_and_is_tried_again(ns, pods, start_proxy, service, slices, eventually):
    await pods("10.244.0.2", named("pod"))
    holder = ns.listen("0.0.0.0", 30080)
    blocked = service("blocked", type="NodePort", clusterIP="10.96.0.11")
    blocked["spec"]["ports"][0]["nodePort"] = 30080
    proxy = await start_proxy(service(), slices("10.244.0.2"), blocked, slices("10.244.0.2", name="blocked"))
    errors = {each.address: each.error for each in await proxy.listeners()}
    assert errors[f"{VIP}:80"] == errors["10.96.0.11:80"] == ""
    assert errors["0.0.0.0:30080"] == "cannot listen on 0.0.0.0:30080: Address already in use"
    assert await ns.ask("10.96.0.11", 80) == b"pod"
    holder.close()

    async def is_open():
        return not any(each.error for each in await proxy.listeners())

    await eventually(is_open)
    assert await ns.ask("127.0.0.1", 30080) == b"pod"


async def test_source_ranges_keep_strangers_out(ns, pods, start_proxy, service, slices):
    await pods("10.244.0.2", named("pod"))
    web = service(
        type="LoadBalancer",
        loadBalancerSourceRanges=["127.0.0.8/32"],
        status={"loadBalancer": {"ingress": [{"ip": "10.98.0.1"}]}},
    )
    await start_proxy(web, slices("10.244.0.2"))
    assert await ns.ask("10.98.0.1", 80, source="127.0.0.8") == b"pod"
    assert await ns.ask(VIP, 80, source="127.0.0.9") == b"pod"
    with pytest.raises(ConnectionResetError):
        await ns.ask("10.98.0.1", 80, source="127.0.0.9")


async def test_terminating_pods_serve_only_when_there_is_no_other(ns, pods, start_proxy, service, slices, eventually):
    await pods("10.244.0.2", named("leaving"))
    await pods("10.244.0.3", named("ready"))
    leaving = slices("10.244.0.2", ready=False, serving=True, terminating=True)
    ready = slices("10.244.0.3")
    ready["metadata"]["name"] = "web-2"
    proxy = await start_proxy(service(), leaving, ready)
    assert {await ns.ask(VIP, 80) for _ in range(4)} == {b"ready"}
    rewrite(proxy, service(), leaving)

    async def falls_back():
        return await ns.ask(VIP, 80) == b"leaving"

    await eventually(falls_back)


async def test_an_unusable_file_leaves_the_last_state_in_force(ns, pods, start_proxy, service, slices, eventually):
    await pods("10.244.0.2", named("pod"))
    proxy = await start_proxy(service(), slices("10.244.0.2"))
    broken = service()
    broken["spec"]["prots"] = []
    rewrite(proxy, broken)

    async def complained():
        return "spec.prots" in proxy.output()

    await eventually(complained)
    assert await ns.ask(VIP, 80) == b"pod"


async def test_sctp_says_that_it_is_not_served(start_proxy, service, slices):
    endpoints = slices("10.244.0.2")
    endpoints["ports"][0]["protocol"] = "SCTP"
    proxy = await start_proxy(service(ports=[{"port": 53, "protocol": "SCTP"}]), endpoints)
    (listener,) = await proxy.listeners()
    assert (listener.protocol, listener.error) == ("SCTP", "SCTP is not served")


async def test_bad_manifest_stops_the_start_with_a_sentence(start_proxy, service):
    broken = service()
    broken["spec"]["prots"] = []
    proxy = await start_proxy(broken, wait=False)
    assert await proxy.wait() == 1
    assert "error: " in proxy.output() and "spec.prots" in proxy.output()
    assert "Traceback" not in proxy.output()


async def test_port_of_the_window_taken_is_a_sentence_and_leaves_no_route(ns, start_proxy, service):
    holder = ns.listen("127.0.0.1", 10256)
    with contextlib.closing(holder):
        proxy = await start_proxy(service(), flags=("--listen", "127.0.0.1:10256"), wait=False)
        assert await proxy.wait() == 1
    assert "cannot listen on 127.0.0.1:10256" in proxy.output()
    assert "Traceback" not in proxy.output()
    assert "10.96" not in ns.run("ip", "route", "show", "table", "local")


async def test_sigterm_stops_accepting_lets_connections_finish_and_removes_the_routes(
    ns, pods, start_proxy, service, slices, eventually
):
    await pods("10.244.0.2", echo)
    proxy = await start_proxy(service(externalIPs=["192.0.2.7"]), slices("10.244.0.2"), flags=("--drain-seconds", "20"))
    routes = ns.run("ip", "route", "show", "table", "local")
    assert "local 10.96.0.0/16 dev lo" in routes and "local 192.0.2.7 dev lo" in routes
    reader, writer = await ns.connect(VIP, 80)
    writer.write(b"one")
    assert await reader.readexactly(3) == b"one"
    proxy.terminate()

    async def closed():
        return await refused(ns, VIP, 80)

    await eventually(closed)
    writer.write(b"two")
    assert await reader.readexactly(3) == b"two"
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    assert await proxy.wait() == 0
    routes = ns.run("ip", "route", "show", "table", "local")
    assert "10.96" not in routes and "10.98" not in routes and "192.0.2.7" not in routes


async def test_drain_ends_with_its_grace_period(ns, pods, start_proxy, service, slices):
    await pods("10.244.0.2", echo)
    proxy = await start_proxy(service(), slices("10.244.0.2"))
    reader, writer = await ns.connect(VIP, 80)
    writer.write(b"x")
    await reader.readexactly(1)
    proxy.terminate()
    assert await proxy.wait() == 0
    writer.close()


async def test_killed_control_half_leaves_connections_and_its_successor_takes_over(
    ns, pods, start_proxy, service, slices, eventually
):
    await pods("10.244.0.2", echo)
    first = await start_proxy(service(), slices("10.244.0.2"))
    reader, writer = await ns.connect(VIP, 80)
    writer.write(b"one")
    assert await reader.readexactly(3) == b"one"
    first.process.kill()
    await first.wait()
    second = await start_proxy(service(), slices("10.244.0.2"))

    async def is_open():
        return not any(each.error for each in await second.listeners())

    await eventually(is_open)
    assert await ns.ask(VIP, 80, b"new") == b"new"
    writer.write(b"two")
    writer.write_eof()
    assert await reader.read() == b"two"
    writer.close()
    second.terminate()
    assert await second.wait() == 0, second.output()
    assert "10.96" not in ns.run("ip", "route", "show", "table", "local")


async def test_dead_data_plane_is_replaced(ns, pods, start_proxy, service, slices, eventually):
    import os
    import signal

    await pods("10.244.0.2", echo)
    proxy = await start_proxy(service(), slices("10.244.0.2"))
    children = ns.run("pgrep", "-P", str(proxy.process.pid), "-f", "proxy.worker").split()
    os.kill(int(children[0]), signal.SIGKILL)

    async def answers():
        with contextlib.suppress(OSError):
            return await ns.ask(VIP, 80, b"back") == b"back"
        return False

    await eventually(answers)


async def test_many_clients_while_endpoints_change_lose_nothing(ns, pods, start_proxy, service, slices):
    addresses = [f"10.244.0.{number}" for number in range(2, 8)]
    for address in addresses:
        await pods(address, echo)
    proxy = await start_proxy(service(), slices(*addresses))
    done = asyncio.Event()

    async def client():
        count = 0
        while not done.is_set():
            assert await ns.ask(VIP, 80, b"ping") == b"ping"
            count += 1
        return count

    async def churn():
        for turn in range(30):
            rewrite(proxy, service(), slices(*addresses[turn % 5 : turn % 5 + 2]))
            await asyncio.sleep(0.03)
        done.set()

    *counts, _ = await asyncio.gather(*(client() for _ in range(8)), churn())
    assert all(counts)
