"""Debian's containerd as the other CRI runtime: a private one, with images made of this machine's programs.

``with containerd(directory) as endpoint`` starts it; all it makes lies under ``directory`` or goes away with it. The
suites that run on it show that they test CRI and not knarr.
"""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PAUSE_IMAGE = "knarr.test/pause:1"
TEST_IMAGE = "knarr.test/tools:1"
PROGRAMS = ("sh", "sleep", "cat", "echo", "true", "false", "head", "env", "ls", "id", "touch", "stty", "python3")
START_TIMEOUT_S = 30

CONFIG = """
version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs"]
[grpc]
  address = "{dir}/c.sock"
[ttrpc]
  address = "{dir}/t.sock"
[debug]
  level = "warn"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{dir}/cni"
"""


def missing() -> str:
    """What containerd needs and this machine lacks; empty when nothing."""
    absent = [name for name in ("containerd", "ctr", "runc") if shutil.which(name) is None]
    if os.geteuid() != 0:
        absent.append("root")
    if not Path("/usr/lib/cni/bridge").exists():
        absent.append("containernetworking-plugins")
    return ", ".join(absent)


def runtime_class(knarrs: type[Any], programs: tuple[str, ...], image: str) -> type[Any]:
    """The contract suite's ``Runtime``, on containerd: the same short forms, another daemon.

    ``programs`` and ``image`` are the suite's: what its image holds, and its full name.
    """

    class ContainerdRuntime(knarrs):
        name = "containerd"

        def start(self) -> None:
            self.daemon = containerd(self.base / "containerd", self.tag)
            self.listen = self.daemon.__enter__()
            self.connect()

        def make_image(self) -> None:
            import_images(self.base / "containerd", programs, image)

        def traces(self) -> dict[str, list[str]]:
            return {"veths": super().traces()["veths"]}

        def close(self) -> None:
            self.channel.close()
            self.daemon.__exit__(None, None, None)
            for cgroup in sorted(Path("/sys/fs/cgroup").rglob(self.tag), reverse=True):
                cgroup.rmdir()
            self.cgroup.rmdir()
            shutil.rmtree(self.base, ignore_errors=True)

    return ContainerdRuntime


@contextmanager
def containerd(directory: Path, bridge: str = f"kc{os.getpid() % 100000}") -> Iterator[str]:
    """A running containerd with PAUSE_IMAGE and TEST_IMAGE; yields its CRI endpoint."""
    (directory / "cni").mkdir(parents=True)
    (directory / "cni/10-test.conflist").write_text(json.dumps(network(directory, bridge)))
    (directory / "config.toml").write_text(CONFIG.format(dir=directory, pause=PAUSE_IMAGE))
    cgroups = set(Path("/sys/fs/cgroup").glob("**/k8s.io"))
    with (directory / "log").open("wb") as log:
        command = ["containerd", "--config", str(directory / "config.toml")]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for_socket(directory / "c.sock", process)
        import_images(directory)
        yield f"unix://{directory}/c.sock"
    finally:
        stop(directory, process)
        subprocess.run(["ip", "link", "delete", bridge], capture_output=True)
        remove_cgroups(set(Path("/sys/fs/cgroup").glob("**/k8s.io")) - cgroups)


def network(directory: Path, bridge: str) -> dict[str, Any]:
    """A CNI configuration: a bridge of its own, addresses from a range that no one else here uses."""
    subnet = f"10.251.{os.getpid() % 256}.0/24"
    ipam = {"type": "host-local", "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]}
    plugin = {"type": "bridge", "bridge": bridge, "isGateway": True, "ipam": {**ipam, "dataDir": f"{directory}/ipam"}}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "knarr-test", "plugins": [plugin, ports]}


def wait_for_socket(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Until something accepts on ``path``. Raises RuntimeError with the log when the process ended instead."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                return probe.connect(str(path))
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.02)
    raise RuntimeError(f"containerd did not start: {(path.parent / 'log').read_text()[-2000:]}")


def stop(directory: Path, process: subprocess.Popen[bytes]) -> None:
    """Remove every pod, then the daemon, then what is still mounted below ``directory``."""
    remove_pods(f"unix://{directory}/c.sock")
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{directory}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False)


def remove_cgroups(made: set[Path]) -> None:
    """Remove containerd's empty parents of pods' cgroups; another containerd's, in use, stay."""
    for cgroup in made:
        try:
            cgroup.rmdir()
        except OSError:
            pass


def remove_pods(endpoint: str) -> None:
    """Stop and remove every pod of a runtime."""
    import grpc

    from protos.cri import runtime_pb2 as pb
    from protos.cri import runtime_pb2_grpc

    with grpc.insecure_channel(endpoint, options=[("grpc.default_authority", "localhost")]) as channel:
        runtime: Any = runtime_pb2_grpc.RuntimeServiceStub(channel)
        try:
            for pod in runtime.ListPodSandbox(pb.ListPodSandboxRequest(), timeout=10).items:
                runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod.id), timeout=30)
                runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod.id), timeout=30)
        except grpc.RpcError as err:
            print(f"cannot remove the pods of {endpoint}: {err}")


def import_images(directory: Path, programs: tuple[str, ...] = PROGRAMS, tools: str = TEST_IMAGE) -> None:
    """Load both images into containerd's store; the one with ``programs`` gets the name ``tools``."""
    write_archive(directory / "images.tar", layer_of(programs), tools)
    ctr = ["ctr", "--address", str(directory / "c.sock"), "--namespace", "k8s.io"]
    subprocess.run([*ctr, "images", "import", str(directory / "images.tar")], check=True, capture_output=True)


def layer_of(programs: tuple[str, ...]) -> bytes:
    """A tar of this machine's programs, the libraries they load, and the files that name users."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for directory in ("tmp", "proc", "sys", "dev", "etc", "root"):
            member = tarfile.TarInfo(directory)
            member.type, member.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            tar.addfile(member)
        for name, text in (("passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("group", "root:x:0:\n")):
            add_file(tar, f"etc/{name}", text.encode(), 0o644)
        for path, source in sorted(closure(programs).items()):
            if path == "bin/python3":
                add_link(tar, path, source)
            else:
                add_file(tar, path, source.read_bytes(), 0o755)
    return out.getvalue()


def add_file(tar: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    tar.addfile(member, io.BytesIO(data))


def add_link(tar: tarfile.TarFile, name: str, target: Path) -> None:
    """python3 finds its library from its real place."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, str(target)
    tar.addfile(member)


def closure(programs: tuple[str, ...]) -> dict[str, Path]:
    """Path in the image to file here, for programs and all that the dynamic linker would load for them."""
    found = {name: Path(path).resolve() for name in programs if (path := shutil.which(name))}
    files: dict[str, Path] = {}
    if "python3" in found:
        found["python3"], files = standard_library()
    for name, program in found.items():
        files[f"bin/{name}"] = program
        listed = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
        for library in re.findall(r"(/\S+) \(0x", listed):
            files[library.lstrip("/")] = Path(library).resolve()
    return files


def standard_library() -> tuple[Path, dict[str, Path]]:
    """The machine's python3 where it really is, and what it needs to start and to open sockets: it looks from there."""
    script = (
        "import encodings.idna, collections.abc, os, socket, sys; print(os.path.realpath(sys._base_executable)); "
        "print(*(m.__file__ for m in sys.modules.values() if getattr(m, '__file__', None)), sep='\\n')"
    )
    listed = subprocess.run(["python3", "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    executable, *modules = listed.stdout.split()
    return Path(executable), {path.lstrip("/"): Path(path) for path in (executable, *modules)}


def write_archive(path: Path, layer: bytes, tools: str = TEST_IMAGE) -> None:
    """An OCI archive with both images on the one layer."""
    blobs: dict[str, bytes] = {}

    def blob(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    packed = blob(gzip.compress(layer, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip")
    diff_id = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    manifests = []
    for name, command in ((PAUSE_IMAGE, ["/bin/sleep", "infinity"]), (tools, ["/bin/sh"])):
        config = {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
            "os": "linux",
            "config": {"Entrypoint": command, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
        described = blob(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json")
        manifest = {"schemaVersion": 2, "config": described, "layers": [packed]}
        entry = blob(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
        manifests.append({**entry, "annotations": {"io.containerd.image.name": name}})
    blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
    blobs["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    with tarfile.open(path, "w") as tar:
        for name, data in blobs.items():
            add_file(tar, name, data, 0o644)
