"""A real daemon on a socket, a raw CRI client, and a check that nothing is left behind."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.cri import runtime_pb2 as cri
from protos.cri import runtime_pb2_grpc
from protos.knarr import images_pb2, images_pb2_grpc

IMAGE = "contract:1"
PATIENCE = int(os.environ.get("KNARR_TEST_PATIENCE", "1"))
"""How many times slower than real this machine may be: an emulated one is."""
PROGRAMS = (
    "sh",
    "sleep",
    "cat",
    "id",
    "ls",
    "echo",
    "true",
    "false",
    "env",
    "ps",
    "mount",
    "hostname",
    "head",
    "dd",
    "stat",
    "touch",
    "readlink",
    "grep",
    "seq",
    "python3",
)


def cgroup2() -> Path:
    """Where the unified hierarchy is mounted."""
    rows = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return next(Path(row[1]) for row in rows if row[2] == "cgroup2")


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 20) -> Any:
    """What ``condition`` returns once it is true."""
    deadline = time.monotonic() + seconds * PATIENCE
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds} s")
        time.sleep(0.01)
    return value


class Runtime:
    """One ``python -m cri_runtime`` with directories of its own. All its processes live in a cgroup of its own."""

    wait_for = staticmethod(wait_for)

    def __init__(self, base: Path) -> None:
        self.base = base
        self.tag = "kc" + secrets.token_hex(3)
        self.cgroup = cgroup2() / f"{self.tag}-daemon"
        self.cgroup.mkdir()
        self.process: subprocess.Popen[bytes] | None = None
        self.listen = f"unix://{base}/run/cri.sock"
        self.log = base / "daemon.log"

    def start(self) -> None:
        """Start the daemon and wait until it serves."""
        octet = int(self.tag[2:4], 16)
        command = [
            *(sys.executable, "-m", "cri_runtime", "--listen", self.listen, "--bridge", self.tag),
            *("--root", str(self.base / "root"), "--state", str(self.base / "state")),
            *("--pod-cidr", f"10.250.{octet}.0/24"),
        ]
        procs = str(self.cgroup / "cgroup.procs")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, preexec_fn=lambda: _join(procs))
        self.connect()
        grpc.channel_ready_future(self.channel).result(timeout=30 * PATIENCE)

    def connect(self) -> None:
        """A new channel; the old one would back off."""
        options = [
            ("grpc.default_authority", "localhost"),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", 16 << 20),
        ]
        self.channel = grpc.insecure_channel(self.listen, options=options)
        self.cri = runtime_pb2_grpc.RuntimeServiceStub(self.channel)
        self.images = images_pb2_grpc.ImagesStub(self.channel)

    def kill(self) -> None:
        """SIGKILL the daemon alone."""
        assert self.process
        self.process.kill()
        self.process.wait()
        self.channel.close()

    def stop(self) -> int:
        """SIGTERM; returns its exit code."""
        assert self.process
        self.process.terminate()
        code = self.process.wait(timeout=20 * PATIENCE)
        self.channel.close()
        return code

    def pids(self) -> list[int]:
        """Daemon, zygote, supervisors and their children outside of container cgroups."""
        return [int(pid) for pid in (self.cgroup / "cgroup.procs").read_text().split()]

    def make_image(self) -> None:
        """The image of all tests, from programs of this machine."""
        for _ in self.images.FromHost(images_pb2.FromHostRequest(programs=PROGRAMS, tag=IMAGE)):
            pass

    # --- short forms

    def sandbox_config(self, **fields: Any) -> cri.PodSandboxConfig:
        """A config with fresh metadata, logging below ``base``."""
        uid = str(uuid.uuid4())
        metadata = cri.PodSandboxMetadata(name=f"pod-{uid[:8]}", namespace="contract", uid=uid)
        config = cri.PodSandboxConfig(metadata=metadata, log_directory=str(self.base / "logs" / uid), **fields)
        config.linux.cgroup_parent = config.linux.cgroup_parent or f"/{self.tag}"
        return config

    def run_sandbox(self, config: cri.PodSandboxConfig | None = None) -> tuple[str, cri.PodSandboxConfig]:
        """RunPodSandbox."""
        config = config or self.sandbox_config()
        answer = self.cri.RunPodSandbox(cri.RunPodSandboxRequest(config=config))
        return answer.pod_sandbox_id, config

    def container_config(self, *command: str, name: str = "c", **fields: Any) -> cri.ContainerConfig:
        """A config that logs to ``<name>.log``."""
        return cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name),
            image=cri.ImageSpec(image=IMAGE),
            command=command,
            log_path=f"{name}.log",
            **fields,
        )

    def create(self, sandbox: tuple[str, cri.PodSandboxConfig], config: cri.ContainerConfig) -> str:
        """CreateContainer."""
        request = cri.CreateContainerRequest(pod_sandbox_id=sandbox[0], config=config, sandbox_config=sandbox[1])
        container_id: str = self.cri.CreateContainer(request).container_id
        return container_id

    def start_container(self, container_id: str) -> None:
        """StartContainer."""
        self.cri.StartContainer(cri.StartContainerRequest(container_id=container_id))

    def run(
        self,
        sandbox: tuple[str, cri.PodSandboxConfig],
        *command: str,
        change: Callable[[cri.ContainerConfig], None] | None = None,
        **fields: Any,
    ) -> str:
        """Create and start; ``change`` edits the config."""
        config = self.container_config(*(command or ("sleep", "1000")), **fields)
        if change:
            change(config)
        container_id = self.create(sandbox, config)
        self.start_container(container_id)
        return container_id

    def status(self, container_id: str) -> cri.ContainerStatus:
        """ContainerStatus.status."""
        return self.cri.ContainerStatus(cri.ContainerStatusRequest(container_id=container_id)).status

    def exec(self, container_id: str, *command: str, timeout: int = 10 * PATIENCE) -> cri.ExecSyncResponse:
        """ExecSync."""
        request = cri.ExecSyncRequest(container_id=container_id, cmd=command, timeout=timeout)
        return self.cri.ExecSync(request)

    def sh(self, container_id: str, script: str) -> str:
        """The output of a shell script in the container; it must succeed."""
        result = self.exec(container_id, "sh", "-c", script)
        assert result.exit_code == 0, result
        output: str = result.stdout.decode().strip()
        return output

    def exited(self, container_id: str) -> cri.ContainerStatus:
        """The status once it is EXITED."""
        wait_for(lambda: self.status(container_id).state == cri.CONTAINER_EXITED, "container exit")
        return self.status(container_id)

    def log_of(self, container_id: str) -> str:
        """The container's log."""
        return Path(self.status(container_id).log_path).read_text()

    def remove(self, sandbox_id: str) -> None:
        """Stop and remove a sandbox."""
        self.cri.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id))
        self.cri.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id))

    def remove_all(self) -> None:
        """Remove every sandbox."""
        for item in self.cri.ListPodSandbox(cri.ListPodSandboxRequest()).items:
            self.remove(item.id)

    # --- leaks

    def traces(self) -> dict[str, list[str]]:
        """What pods leave in the kernel and on disk while they live."""
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        tops = {cgroup2(), *Path("/sys/fs/cgroup").iterdir()}
        cgroups = [str(top / self.tag) for top in tops if (top / self.tag).is_dir()]
        ports = Path(f"/sys/class/net/{self.tag}/brif")
        return {
            "processes": sorted(_describe(pid) for pid in self.pids() if not self._is_daemon(pid)),
            "mounts": [line for line in mounts if str(self.base) in line],
            "cgroups": cgroups,
            "veths": [port.name for port in ports.iterdir()] if ports.exists() else [],
            "state": _names(self.base / "state" / "pods"),
            "containers": _names(self.base / "root" / "containers"),
            "records": _names(self.base / "root" / "records"),
        }

    def _is_daemon(self, pid: int) -> bool:
        assert self.process
        if pid == self.process.pid:
            return True
        with contextlib.suppress(OSError):
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            return parent == self.process.pid
        return True

    def assert_clean(self) -> None:
        """Nothing of any pod is left. Devices and processes may take a moment to vanish."""
        empty: dict[str, list[str]] = {name: [] for name in self.traces()}
        deadline = time.monotonic() + 5 * PATIENCE
        while (found := self.traces()) != empty and time.monotonic() < deadline:
            time.sleep(0.02)
        assert found == empty

    def close(self) -> None:
        """End what is left, whatever the test did."""
        if self.process and self.process.poll() is None:
            with contextlib.suppress(grpc.RpcError):
                self.remove_all()
            self.stop()
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not self.pids(), "end of leftover processes")
        self.cgroup.rmdir()
        for top in {cgroup2(), *Path("/sys/fs/cgroup").iterdir()}:
            _remove_cgroups(top / self.tag)
        subprocess.run(["ip", "link", "delete", self.tag], check=False, capture_output=True)
        subprocess.run(["nft", "delete", "table", "inet", f"knarr_{self.tag}"], check=False, capture_output=True)
        shutil.rmtree(self.base, ignore_errors=True)


def _describe(pid: int) -> str:
    """A process for people: pid, name, parent, what it waits for, its namespaces' mounts."""
    try:
        status = dict(
            line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
        waits = Path(f"/proc/{pid}/wchan").read_text()
        return f"{pid} {status['Name']} parent {status['PPid'].strip()} pids {status['NSpid']} waits in {waits}"
    except (OSError, KeyError):
        return f"{pid} is ending"


def _remove_cgroups(top: Path) -> None:
    """What a daemon that could not clean up left."""
    for directory in (*top.glob("*/"), top):
        if (directory / "cgroup.kill").exists():
            (directory / "cgroup.kill").write_text("1")
        if directory.exists():
            wait_for(lambda d=directory: not (d / "cgroup.procs").read_text(), "end of leftover containers")
            directory.rmdir()


def _join(procs: str) -> None:
    Path(procs).write_text("0")


def _names(directory: Path) -> list[str]:
    return sorted(str(p.relative_to(directory)) for p in directory.glob("*/*.json")) + (
        sorted(p.name for p in directory.iterdir() if p.name not in ("sandboxes", "containers"))
        if directory.exists()
        else []
    )


@pytest.fixture(scope="session")
def _daemon() -> Iterator[Runtime]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    runtime = Runtime(Path(tempfile.mkdtemp(prefix="kc-", dir="/tmp")))
    try:
        runtime.start()
        runtime.make_image()
        yield runtime
    finally:
        runtime.close()


@pytest.fixture
def runtime(_daemon: Runtime) -> Iterator[Runtime]:
    """The shared daemon; each test must leave it without pods, and without their traces."""
    yield _daemon
    _daemon.remove_all()
    _daemon.assert_clean()


@pytest.fixture
def mortal(_daemon: Runtime) -> Iterator[Runtime]:
    """A daemon of the test's own, to kill."""
    runtime = Runtime(Path(tempfile.mkdtemp(prefix="kc-", dir="/tmp")))
    try:
        shutil.copytree(_daemon.base / "root" / "images", runtime.base / "root" / "images", symlinks=True)
        runtime.start()
        yield runtime
        runtime.remove_all()
        runtime.assert_clean()
    finally:
        runtime.close()


@pytest.fixture
def sandbox(runtime: Runtime) -> tuple[str, cri.PodSandboxConfig]:
    """A running sandbox."""
    return runtime.run_sandbox()
