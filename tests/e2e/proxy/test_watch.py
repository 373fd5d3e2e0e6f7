"""The proxy on a real apiserver: follows it, and serves on without it."""

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from control.client import Client, errors
from protos.k8s.core_v1_pb2 import Service
from protos.k8s.discovery_v1_pb2 import EndpointSlice

pytestmark = pytest.mark.root


def named(name):
    async def handler(reader, writer):
        writer.write(name.encode())
        await writer.drain()
        await reader.read()

    return handler


def free_port():
    with contextlib.closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Apiserver:
    """``python -m control apiserver`` on a stock etcd, on a unix socket."""

    def __init__(self, folder):
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self.address = f"unix://{folder}/api.sock"
        self._log = (folder / "control-plane.log").open("ab")
        etcd = ["etcd", "--data-dir", f"{folder}/etcd", "--log-level", "error", "--listen-client-urls", client]
        etcd += ["--advertise-client-urls", client, "--listen-peer-urls", peer]
        etcd += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
        self._etcd = subprocess.Popen(etcd, stdout=self._log, stderr=self._log)
        self._command = [sys.executable, "-m", "control", "apiserver", "--store-endpoints", client]
        self._command += ["--listen", f"127.0.0.1:{free_port()}", "--insecure-listen", self.address]
        self.start()

    def start(self):
        self.process = subprocess.Popen(self._command, stdout=self._log, stderr=self._log)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        for process in (self.process, self._etcd):
            process.terminate()
            process.wait(15)
        self._log.close()


@pytest.fixture
def apiserver():
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed")
    with tempfile.TemporaryDirectory(prefix="knarr-proxy-api-") as path:
        server = Apiserver(Path(path))
        yield server
        server.close()


@pytest.fixture
async def client(apiserver, eventually):
    async with Client(apiserver.address) as client:

        async def is_up():
            with contextlib.suppress(errors.ApiError):
                await client.list(Service, "default")
                return True
            return False

        await eventually(is_up)
        yield client


def web_service():
    service = Service()
    service.metadata.name, service.metadata.namespace = "web", "default"
    service.spec.ports.add(port=80, protocol="TCP")
    return service


def web_slice(*addresses):
    slice_ = EndpointSlice(addressType="IPv4")
    slice_.metadata.name, slice_.metadata.namespace = "web-1", "default"
    slice_.metadata.labels["kubernetes.io/service-name"] = "web"
    slice_.ports.add(name="", port=8080, protocol="TCP")
    for address in addresses:
        slice_.endpoints.add(addresses=[address]).conditions.ready = True
    return slice_


async def test_follows_the_apiserver_and_serves_on_without_it(ns, pods, start_proxy, apiserver, client, eventually):
    await pods("10.244.0.2", named("first"))
    await pods("10.244.0.3", named("second"))
    service = await client.create(web_service())
    await client.create(web_slice("10.244.0.2"))
    vip = service.spec.clusterIP
    await start_proxy(flags=("--server", apiserver.address))
    assert await ns.ask(vip, 80) == b"first"

    await client.update(web_slice("10.244.0.3"))

    async def follows():
        return await ns.ask(vip, 80) == b"second"

    await eventually(follows)
    apiserver.kill()
    assert await ns.ask(vip, 80) == b"second"
    apiserver.start()

    async def is_back():
        with contextlib.suppress(errors.ApiError):
            await client.delete(Service, "web", namespace="default")
            return True
        return False

    await eventually(is_back)

    async def is_refused():
        try:
            await ns.ask(vip, 80)
        except ConnectionRefusedError:
            return True
        return False

    await eventually(is_refused)
