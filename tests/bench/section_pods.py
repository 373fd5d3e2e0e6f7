"""Pods through CRI: ``python -m cri_runtime`` against containerd with runc and with crun, one call sequence for all."""

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from bench.image import REFERENCE, unpack, write_image
from bench.processes import PYTHON, folder, naming, need, need_root, network_namespace, process, wait_until
from bench.report import Row, Section, Skip, median, quantile
from bench.section_memory import pss_mib

from protos.cri import runtime_pb2 as pb
from protos.cri import runtime_pb2_grpc as rpc

NAME = "pods"
PODS_PER_ROUND = 10
EXECS_PER_ROUND = 40
HELD = 10
PARALLEL = 4
CALL_S = 60.0
CNI_BIN = Path("/usr/lib/cni")

Samples = dict[tuple[str, str], list[float]]

CONTAINERD = """version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{dir}/sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{dir}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    BinaryName = "runc"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun.options]
    BinaryName = "crun"
"""

CNI = {
    "cniVersion": "1.0.0",
    "name": "bench",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "bench0",
            "isGateway": True,
            "ipam": {"type": "host-local", "dataDir": "", "ranges": [[{"subnet": "10.199.0.0/24"}]]},
        }
    ],
}


class Runtime:
    """A CRI socket and the calls that make, use and end a pod."""

    def __init__(self, name: str, socket: Path, handler: str = "", pid: int = 0) -> None:
        self.name = name
        self.handler = handler
        self.pid = pid
        self.folder = socket.parent  # everything that the daemon starts names it, or descends from what does
        self.logs = self.folder / "pod-logs"
        self.channel = grpc.insecure_channel(f"unix:{socket}", options=[("grpc.default_authority", "localhost")])
        self.stub = rpc.RuntimeServiceStub(self.channel)

    def call(self, name: str, request: Any) -> Any:
        """One call of RuntimeService. Raises Skip, naming the runtime and the call, when it fails."""
        try:
            return getattr(self.stub, name)(request, timeout=CALL_S)
        except grpc.RpcError as err:
            raise Skip(f"{self.name}: {name}: {err.details()}") from err

    def start(self) -> tuple[str, str]:
        """RunPodSandbox, CreateContainer, StartContainer; the ids of the pod and the container."""
        uid = str(uuid.uuid4())
        pod = pb.PodSandboxConfig(
            metadata=pb.PodSandboxMetadata(name=f"bench-{uid[:8]}", uid=uid, namespace="bench"),
            log_directory=str(self.logs / uid),
        )
        pod.linux.SetInParent()
        request = pb.RunPodSandboxRequest(config=pod, runtime_handler=self.handler)
        sandbox = self.call("RunPodSandbox", request).pod_sandbox_id
        config = pb.ContainerConfig(
            metadata=pb.ContainerMetadata(name="main"),
            image=pb.ImageSpec(image=REFERENCE),
            command=["/bin/sleep", "3600"],
            log_path="main.log",
        )
        config.linux.SetInParent()
        create = pb.CreateContainerRequest(pod_sandbox_id=sandbox, config=config, sandbox_config=pod)
        container = self.call("CreateContainer", create).container_id
        self.call("StartContainer", pb.StartContainerRequest(container_id=container))
        return sandbox, container

    def exec_true(self, container: str) -> None:
        """ExecSync /bin/true. Raises Skip when that fails."""
        request = pb.ExecSyncRequest(container_id=container, cmd=["/bin/true"], timeout=10)
        if self.call("ExecSync", request).exit_code != 0:
            raise Skip(f"{self.name}: exec of /bin/true failed")

    def stop(self, sandbox: str) -> None:
        """StopPodSandbox, RemovePodSandbox."""
        self.call("StopPodSandbox", pb.StopPodSandboxRequest(pod_sandbox_id=sandbox))
        self.call("RemovePodSandbox", pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox))

    def answers(self) -> bool:
        """The daemon is up and its network is ready."""
        try:
            status = self.stub.Status(pb.StatusRequest(), timeout=2).status
        except grpc.RpcError:
            return False
        return all(condition.status for condition in status.conditions)


def run(rounds: int, seconds: float) -> Section:
    """Measure. Raises Skip."""
    need_root()
    need("containerd", "ctr", "runc", "unshare", "nsenter", "ip")
    if not (CNI_BIN / "bridge").exists():
        raise Skip(f"the CNI plugins are not in {CNI_BIN}")
    section = Section(
        NAME,
        "Pods",
        facts=(
            "Through CRI, image present, bridge network: pod start is RunPodSandbox + CreateContainer + StartContainer "
            "of `sleep`. Alternating pod by pod. Memory per pod is the PSS of all processes a pod adds."
        ),
    )
    samples: Samples = {}
    with folder() as path, network_namespace() as inside, ExitStack() as stack:
        image = path / "image.tar"
        write_image(image)
        bare = _bare(path, image)
        runtimes = _start_all(stack, path, inside, image)
        _measure(samples, runtimes, rounds)
    section.rows = _rows(samples, bare)
    return section


def _measure(samples: Samples, runtimes: list[Runtime], rounds: int) -> None:
    for runtime in runtimes:
        runtime.stop(runtime.start()[0])
    for _ in range(rounds):
        _round(samples, runtimes)
    for runtime in runtimes:
        _memory(samples, runtime)
        _parallel(samples, runtime)


def _start_all(stack: ExitStack, path: Path, inside: list[str], image: Path) -> list[Runtime]:
    ours = _start_ours(stack, path, inside, image)
    socket, pid = _start_containerd(stack, path, inside, image)
    runtimes = [ours, Runtime("containerd+runc", socket, "runc", pid)]
    crun = Runtime("containerd+crun", socket, "crun", pid)
    try:
        crun.stop(crun.start()[0])
    except Skip:
        return runtimes  # some crun releases refuse some cgroup layouts; the table then has no crun
    return [*runtimes, crun]


def _start_ours(stack: ExitStack, path: Path, inside: list[str], image: Path) -> Runtime:
    base = path / "knarr"
    base.mkdir()
    command = [PYTHON, "-m", "cri_runtime", "--root", f"{base}/root", "--state", f"{base}/state"]
    command += ["--listen", f"unix://{base}/sock", "--bridge", "bench1", "--pod-cidr", "10.198.0.0/24"]
    stack.callback(subprocess.run, [*inside, *command, "--teardown"], capture_output=True)
    child = stack.enter_context(process([*inside, *command], base / "log"))
    runtime = Runtime("knarr", base / "sock", pid=child.pid)
    stack.callback(remove_all, runtime)
    wait_until(runtime.answers, "cri_runtime", child, base / "log")
    _load(runtime.channel, image)
    return runtime


def _load(channel: grpc.Channel, image: Path) -> None:
    from protos.knarr import images_pb2, images_pb2_grpc

    data = image.read_bytes()
    chunks = (images_pb2.Chunk(data=data[at : at + (1 << 20)]) for at in range(0, len(data), 1 << 20))
    images_pb2_grpc.ImagesStub(channel).Load(chunks, timeout=60)


def _start_containerd(stack: ExitStack, path: Path, inside: list[str], image: Path) -> tuple[Path, int]:
    base = path / "containerd"
    (base / "cni").mkdir(parents=True)
    CNI["plugins"][0]["ipam"]["dataDir"] = f"{base}/ipam"  # type: ignore[index]
    (base / "cni" / "bench.conflist").write_text(json.dumps(CNI))
    (base / "config.toml").write_text(CONTAINERD.format(dir=base, image=REFERENCE, cni=CNI_BIN))
    child = stack.enter_context(process([*inside, "containerd", "--config", f"{base}/config.toml"], base / "log"))
    runtime = Runtime("containerd", base / "sock")
    stack.callback(remove_all, runtime)
    wait_until(runtime.answers, "containerd", child, base / "log")
    load = ["ctr", "--address", f"{base}/sock", "-n", "k8s.io", "images", "import", str(image)]
    subprocess.run(load, check=True, capture_output=True)
    return base / "sock", child.pid


def remove_all(runtime: Runtime) -> None:
    """End every pod that an interrupted run left."""
    try:
        for pod in runtime.stub.ListPodSandbox(pb.ListPodSandboxRequest(), timeout=5).items:
            runtime.stop(pod.id)
    except (grpc.RpcError, Skip):
        pass  # the daemon is gone: its pods are what it says they are


def _round(samples: Samples, runtimes: list[Runtime]) -> None:
    for number in range(PODS_PER_ROUND):
        for runtime in runtimes if number % 2 == 0 else reversed(runtimes):
            with _timed(samples, "start", runtime):
                sandbox, _ = runtime.start()
            with _timed(samples, "stop", runtime):
                runtime.stop(sandbox)
    pods = [(runtime, *runtime.start()) for runtime in runtimes]
    for number in range(EXECS_PER_ROUND):
        for runtime, _, container in pods if number % 2 == 0 else reversed(pods):
            with _timed(samples, "exec", runtime):
                runtime.exec_true(container)
    for runtime, sandbox, _ in pods:
        runtime.stop(sandbox)


@contextmanager
def _timed(samples: Samples, what: str, runtime: Runtime) -> Iterator[None]:
    start = time.perf_counter()
    yield
    samples.setdefault((what, runtime.name), []).append((time.perf_counter() - start) * 1e3)


def _memory(samples: Samples, runtime: Runtime) -> None:
    before = naming(runtime.folder)
    pods = [runtime.start()[0] for _ in range(HELD)]
    added = naming(runtime.folder).keys() - before.keys()
    samples["memory", runtime.name] = [sum(_pss(pid) for pid in added) / HELD]
    samples["daemon", runtime.name] = [_pss(runtime.pid)]
    for pod in pods:
        runtime.stop(pod)


def _parallel(samples: Samples, runtime: Runtime) -> None:
    """The rate, or none where a start failed: the table then shows that there is none."""
    with ThreadPoolExecutor(PARALLEL) as pool:
        start = time.perf_counter()
        starts = [pool.submit(runtime.start) for _ in range(20)]
        failures = [each.exception() for each in starts]
        rate = 20 / (time.perf_counter() - start)
        list(pool.map(runtime.stop, [each.result()[0] for each in starts if each.exception() is None]))
    failed = [error for error in failures if error is not None]
    samples["parallel", runtime.name] = [] if failed else [rate]
    for error in failed:
        print(f"  not measured: {PARALLEL} pods at once: {error}", file=sys.stderr)


def _pss(pid: int) -> float:
    try:
        return pss_mib(pid)
    except (OSError, StopIteration):  # it has ended, or is a kernel thread
        return 0.0


@dataclass(frozen=True)
class Bare:
    """Median ms of the bare tools, without a daemon: what containerd's figures stand on."""

    run_ms: dict[str, float]


def _bare(path: Path, image: Path) -> Bare:
    """``runc run`` and ``crun run`` of /bin/true in a bundle of the same image."""
    bundle = path / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    unpack(image, bundle / "rootfs")
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    spec: dict[str, Any] = json.loads((bundle / "config.json").read_text())
    spec["process"].update(terminal=False, args=["/bin/true"])
    (bundle / "config.json").write_text(json.dumps(spec))
    found = {}
    for tool in ("runc", "crun"):
        times = [took for number in range(12) if (took := _run_once(tool, bundle, f"bench-{number}")) is not None]
        if times:
            found[tool] = median(times)
    return Bare(found)


def _run_once(tool: str, bundle: Path, name: str) -> float | None:
    start = time.perf_counter()
    command = [tool, "--root", str(bundle.parent / tool), "run", "--bundle", str(bundle), f"{name}-{uuid.uuid4()}"]
    try:
        done = subprocess.run(command, capture_output=True)
    except FileNotFoundError:
        return None
    return (time.perf_counter() - start) * 1e3 if done.returncode == 0 else None


def _rows(samples: Samples, bare: Bare) -> list[Row]:
    note = ", ".join(f"{tool} run alone: {ms:.3g}" for tool, ms in bare.run_ms.items())
    rows = []
    for peer in [name for what, name in samples if what == "start" and name != "knarr"]:
        for what, noun in (("start", "pod start"), ("exec", "exec of true"), ("stop", "pod stop and removal")):
            for label, figure in (("p50", median), ("p99", _p99)):
                ours, theirs = figure(samples[what, "knarr"]), figure(samples[what, peer])
                rows.append(Row(f"{noun}, {label}", "ms", ours, theirs, peer, False, note if what == "start" else ""))
        for what, noun, unit, higher in (
            ("parallel", f"pods started, {PARALLEL} at once", "per s", True),
            ("memory", "memory that a pod adds, PSS", "MiB", False),
            ("daemon", f"daemon with {HELD} pods, PSS", "MiB", False),
        ):
            ours, theirs = (next(iter(samples[what, name]), None) for name in ("knarr", peer))
            rows.append(Row(noun, unit, ours, theirs, peer, higher))
    return rows


def _p99(values: list[float]) -> float:
    return quantile(values, 0.99)
