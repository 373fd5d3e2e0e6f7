"""A whole control plane in this process (stock etcd below it) and a kubelet on a real CRI runtime, in tmp directories.

The same tests run on Debian's containerd and on cri_runtime: what they show is true of CRI, not of one runtime.
"""

import argparse
import asyncio
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import control.controllers.main as controllers
import control.kubelet.main as kubelet
import control.scheduler.main as scheduler
from control.apiserver.main import Options, serve_options
from control.client import Client, errors
from control.kubelet import cgroups
from control.kubelet.runtime import Runtime, RuntimeFailed
from protos.cri import runtime_pb2 as cri
from protos.k8s import core_v1_pb2 as core

IMAGE = "localhost/knarr-kubelet-test:1"
PROGRAMS = ("sh", "sleep", "cat", "ls", "env", "id", "touch", "rm", "kill")
NODE = "test-node"


def free_port() -> int:
    """A TCP port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- an image from this machine's own binaries -------------------------------------------------------------------


def _closure(program: Path) -> set[Path]:
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return {Path(found) for found in re.findall(r"(/\S+) \(0x", listed)}


@pytest.fixture(scope="session")
def image_tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A docker archive of ``IMAGE``: a shell and a few programs."""
    found = {name: shutil.which(name) for name in PROGRAMS}
    if not all(found[name] for name in ("sh", "sleep", "cat")):
        pytest.skip("no sh, sleep and cat on this machine to make an image of")
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in ("tmp", "etc", "dev", "proc", "sys"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(directory)
        passwd = b"root:x:0:0:root:/:/bin/sh\n"
        users = tarfile.TarInfo("etc/passwd")
        users.size = len(passwd)
        tar.addfile(users, io.BytesIO(passwd))
        libraries: set[Path] = set()
        for name, path in found.items():
            if path is not None:
                real = Path(path).resolve()
                tar.add(real, f"bin/{name}")
                libraries |= _closure(real)
        for library in sorted(libraries):
            tar.add(library.resolve(), str(library).lstrip("/"))
    blob = layer.getvalue()
    config = {
        "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
        "os": "linux",
        "config": {"Entrypoint": ["/bin/sleep", "infinity"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(blob).hexdigest()}"]},
        "history": [{"created_by": "test"}],
    }
    name = f"{hashlib.sha256(json.dumps(config).encode()).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    archive = tmp_path_factory.mktemp("image") / "image.tar"
    with tarfile.open(archive, "w") as tar:
        for member, data in ((name, json.dumps(config)), ("layer.tar", blob), ("manifest.json", json.dumps(manifest))):
            raw = data if isinstance(data, bytes) else data.encode()
            info = tarfile.TarInfo(member)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return archive


def _spawn(command: list[str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)


# -- runtimes ----------------------------------------------------------------------------------------------------


class RuntimeProcess:
    """A CRI runtime that can be killed and started again on the same state."""

    def __init__(self, name: str, command: list[str], socket_path: Path, log: Path) -> None:
        self.name, self.command, self.socket, self.log_path = name, command, socket_path, log
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """For ``--runtime-endpoint``."""
        return f"unix://{self.socket}"

    async def start(self) -> None:
        """Start and wait until it answers."""
        self.process = _spawn(self.command, self.log_path)
        runtime = Runtime(self.endpoint)
        try:
            async with asyncio.timeout(20):
                while True:
                    try:
                        await runtime.version()
                        return
                    except RuntimeFailed:
                        if self.process.poll() is not None:
                            raise RuntimeError(f"{self.name} ended: {self.log_path.read_text()[-2000:]}") from None
                        await asyncio.sleep(0.05)
        finally:
            await runtime.aclose()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal and wait for the end."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(15)


CONTAINERD = """
version = 2
root = "{work}/root"
state = "{work}/state"
disabled_plugins = ["io.containerd.internal.v1.restart"]
[grpc]
  address = "{work}/cri.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{work}/cni"
"""
PTP = {
    "cniVersion": "0.4.0",
    "name": "knarr-test",
    "plugins": [{"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.251.77.0/24"}}],
}


def _containerd(work: Path) -> RuntimeProcess:
    if not shutil.which("containerd") or not shutil.which("ctr"):
        pytest.skip("containerd is not installed (Debian package containerd)")
    if not Path("/usr/lib/cni/ptp").exists():
        pytest.skip("the CNI plugins are not installed (Debian package containernetworking-plugins)")
    (work / "cni").mkdir()
    PTP["plugins"][0]["ipam"]["dataDir"] = str(work / "ipam")  # type: ignore[index]
    (work / "cni" / "10-test.conflist").write_text(json.dumps(PTP))
    (work / "config.toml").write_text(CONTAINERD.format(work=work, image=IMAGE))
    return RuntimeProcess(
        "containerd", ["containerd", "--config", str(work / "config.toml")], work / "cri.sock", work / "runtime.log"
    )


def _cri_runtime(work: Path) -> RuntimeProcess:
    bridge = f"kt{os.getpid() % 100000}"
    command = [
        sys.executable, "-m", "cri_runtime", "--root", str(work / "root"), "--state", str(work / "state"),
        "--listen", f"unix://{work}/cri.sock", "--bridge", bridge, "--pod-cidr", "10.251.78.0/24",
    ]  # fmt: skip
    return RuntimeProcess("cri_runtime", command, work / "cri.sock", work / "runtime.log")


async def _load(runtime: RuntimeProcess, image: Path) -> None:
    if runtime.name == "containerd":
        command = ["ctr", "-a", str(runtime.socket), "-n", "k8s.io", "images", "import", str(image)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return
    from protos.knarr import images_pb2, images_pb2_grpc
    from protos.serving import open_channel

    async with open_channel(runtime.endpoint) as channel:
        await images_pb2_grpc.ImagesStub(channel).Load(iter([images_pb2.Chunk(data=image.read_bytes())]))


async def _sweep(runtime: RuntimeProcess) -> None:
    """Remove every pod, so that nothing of a test stays on the machine."""
    client = Runtime(runtime.endpoint)
    try:
        sandboxes = await client.call("ListPodSandbox", cri.ListPodSandboxRequest())
        for item in sandboxes.items:
            await client.call("StopPodSandbox", cri.StopPodSandboxRequest(pod_sandbox_id=item.id))
            await client.call("RemovePodSandbox", cri.RemovePodSandboxRequest(pod_sandbox_id=item.id))
            cgroups.remove(f"/kubepods/besteffort/pod{item.metadata.uid}", cgroups.hierarchies())
    finally:
        await client.aclose()


@pytest_asyncio.fixture(params=["containerd", "cri_runtime"], scope="module", loop_scope="module")
async def runtime(request: pytest.FixtureRequest, image_tar: Path) -> AsyncIterator[RuntimeProcess]:
    """A running runtime that has ``IMAGE``."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    work = Path(tempfile.mkdtemp(prefix="kt-", dir="/tmp"))  # short, for the socket's sake
    process = {"containerd": _containerd, "cri_runtime": _cri_runtime}[request.param](work)
    await process.start()
    try:
        await _load(process, image_tar)
        yield process
    finally:
        if process.process is not None and process.process.poll() is not None:
            await process.start()  # a test that failed left it dead, and its pods alive
        await _sweep(process)
        process.kill(signal.SIGTERM)
        if process.name == "cri_runtime":
            _spawn([*process.command, "--teardown"], process.log_path).wait(15)
        shutil.rmtree(work, ignore_errors=True)


# -- the control plane -------------------------------------------------------------------------------------------


def _args(module: Any, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args(words)


class Service:
    """A ``serve`` coroutine in a task that can be stopped and started."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start it."""
        self.task = asyncio.create_task(self.make())

    async def stop(self) -> None:
        """Stop it and see that it ends cleanly."""
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task
            self.task = None


class Plane:
    """A control plane and one node."""

    def __init__(self, client: Client, services: dict[str, Service], runtime: RuntimeProcess) -> None:
        self.client, self.services, self.runtime = client, services, runtime

    async def until(self, what: Callable[[], Any], timeout_s: float = 30.0) -> Any:
        """Await ``what()`` until it is true; returns it. NotFound counts as not yet."""
        last: Any = None
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    for service in self.services.values():
                        if service.task is not None and service.task.done():
                            service.task.result()
                    try:
                        last = await what()
                    except errors.NotFound:
                        last = None
                    if last:
                        return last
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"never came true; last: {last}; pods: {await self.describe()}") from None

    async def describe(self) -> str:
        """What the pods and events say, for a failing test."""
        pods = await self.client.list(core.Pod)
        events = await self.client.list(core.Event)
        lines = [f"{e.involvedObject.name} {e.reason} {e.message}" for e in events.items]
        return "\n".join([*(str(pod.status) for pod in pods.items), *lines])[-6000:]

    async def pod(self, name: str) -> core.Pod:
        """A pod of namespace default."""
        return await self.client.get(core.Pod, name, namespace="default")

    async def empty(self) -> bool:
        """True when neither the API nor the runtime has a pod."""
        runtime = Runtime(self.runtime.endpoint)
        try:
            return not (await self.client.list(core.Pod, "default")).items and not await runtime.pods()
        finally:
            await runtime.aclose()

    async def running(self, name: str) -> core.Pod | None:
        """The pod, if it is Running and ready."""
        pod = await self.pod(name)
        ready = any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions)
        return pod if pod.status.phase == "Running" and ready else None


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole(runtime: RuntimeProcess) -> AsyncIterator[Plane]:
    """etcd, apiserver, scheduler, controllers and a kubelet on ``runtime``."""
    if not shutil.which("etcd"):
        pytest.skip("etcd is not installed (Debian package etcd-server)")
    workdir = runtime.socket.parent
    client_port, peer_port, api_port = free_port(), free_port(), free_port()
    urls = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
    command = [
        "etcd", "--data-dir", str(workdir / "etcd"), "--log-level", "error",
        "--listen-client-urls", urls[0], "--advertise-client-urls", urls[0],
        "--listen-peer-urls", urls[1], "--initial-advertise-peer-urls", urls[1],
        "--initial-cluster", f"default={urls[1]}",
    ]  # fmt: skip
    etcd = _spawn(command, workdir / "etcd.log")
    server = f"127.0.0.1:{api_port}"
    where = ("--server", server)
    node = (
        "--node-name", NODE, "--runtime-endpoint", runtime.endpoint,
        "--root-dir", str(workdir / "kubelet"), "--listen", f"127.0.0.1:{free_port()}",
    )  # fmt: skip
    services = {
        "apiserver": Service(lambda: serve_options(Options((urls[0],), listen=server))),
        "scheduler": Service(lambda: scheduler.serve(_args(scheduler, *where, "--listen", "127.0.0.1:0"))),
        "controllers": Service(lambda: controllers.serve(_args(controllers, *where, "--listen", "127.0.0.1:0"))),
        "kubelet": Service(lambda: kubelet.serve(_args(kubelet, *where, *node))),
    }
    for service in services.values():
        service.start()
    try:
        async with Client(server) as client:
            plane = Plane(client, services, runtime)
            await plane.until(lambda: _up(client))
            yield plane
    finally:
        for service in reversed(services.values()):
            await service.stop()
        etcd.terminate()
        etcd.wait()


@pytest_asyncio.fixture(loop_scope="module")
async def plane(whole: Plane) -> AsyncIterator[Plane]:
    """The control plane for one test, which leaves no pod behind."""
    yield whole
    for kind in (core.ReplicationController, core.Pod, core.Event):
        await whole.client.delete_collection(kind, "default", grace_period_seconds=1)
    await whole.until(whole.empty)


async def _up(client: Client) -> bool:
    try:
        node = await client.get(core.Node, NODE)
    except errors.Unavailable:
        return False
    return any(c.type == "Ready" and c.status == "True" for c in node.status.conditions)


@pytest.fixture
def manifest() -> Callable[..., core.Pod]:
    """Makes a pod of one container: ``manifest("name", command, **spec fields as JSON)``."""
    from control.api.codec import from_json

    def make(name: str, command: list[str], container: dict[str, Any] | None = None, **spec: Any) -> core.Pod:
        main = {"name": "main", "image": IMAGE, "command": command, **(container or {})}
        metadata = {"name": name, "namespace": "default", "labels": {"app": name}}
        body = {"containers": [main], "terminationGracePeriodSeconds": 1, **spec}
        pod: core.Pod = from_json({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body})
        return pod

    return make
