"""The daemon: composes network, images, pods and streams, and serves them on one unix socket.

It may be killed at any time. Pods live on under their supervisors; the next start reads the records, looks at the
kernel and converges (``pod/recovery.py``).
"""

import asyncio
import fcntl
import logging
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cri_runtime.build.pod_runner import PodRunner
from cri_runtime.cgroups import detect
from cri_runtime.network import BridgeNetwork, CNINetwork
from cri_runtime.network.errors import NetworkError
from cri_runtime.network.types import Network
from cri_runtime.pod.client import Zygote
from cri_runtime.pod.containers import Containers
from cri_runtime.pod.execs import Execs
from cri_runtime.pod.records import Records
from cri_runtime.pod.recovery import recover
from cri_runtime.pod.sandboxes import Sandboxes
from cri_runtime.pod.stats import Stats
from cri_runtime.pod.world import World
from cri_runtime.service.images import IMAGE_SERVICES, add_image_services, open_images
from cri_runtime.service.runtime import Parts, RuntimeService
from cri_runtime.service.streaming import StreamingServer
from protos.cri import runtime_pb2_grpc
from protos.serving import new_server, running

log = logging.getLogger(__name__)

RUNTIME_SERVICE = "runtime.v1.RuntimeService"


@dataclass(frozen=True)
class Config:
    """The daemon's settings; the flags of ``python -m cri_runtime``."""

    root: Path
    state: Path
    listen: str = "unix:///run/knarr/cri.sock"
    registries: Path | None = None
    cni_conf_dir: Path | None = None
    cni_bin_dir: Path = Path("/opt/cni/bin")
    pod_cidr: str = "10.244.0.0/24"
    bridge: str = "knarr0"
    stream_listen: str = "127.0.0.1:0"

    def describe(self) -> dict[str, Any]:
        """For people and Status."""
        return {name: str(value) for name, value in asdict(self).items()}


async def serve(config: Config) -> None:
    """Serve until cancelled; pods go on without us. Raises OSError with what to do when it cannot start."""
    async with AsyncExitStack() as stack:
        prepare(config)
        stack.enter_context(sole_owner(config.root))
        zygote = Zygote()  # before gRPC makes threads
        zygote.start()
        stack.callback(zygote.close)
        records = Records(config.root)
        stack.callback(records.close)
        network = make_network(config)
        stack.push_async_callback(network.aclose)
        images = await stack.enter_async_context(open_images(config.root / "images", config.registries))
        streaming = StreamingServer(config.stream_listen)
        await streaming.start()
        stack.push_async_callback(streaming.aclose)
        world = World(config.root, config.state, records, detect(), images.store, network, zygote)
        containers = Containers(world)
        sandboxes = Sandboxes(world, containers)
        execs = Execs(world)
        stack.callback(execs.close)
        stack.push_async_callback(_disconnect, world)
        world.tasks = await stack.enter_async_context(asyncio.TaskGroup())
        await _set_up_network(network)
        await recover(world, sandboxes, containers)
        images.builder.runner = PodRunner.after_recovery(world)
        server = new_server()
        parts = Parts(world, sandboxes, containers, execs, Stats(world), streaming, config.describe())
        runtime_pb2_grpc.add_RuntimeServiceServicer_to_server(RuntimeService(parts), server)
        add_image_services(server, images)
        with _private_files():
            await stack.enter_async_context(
                running(server, [config.listen], services=[RUNTIME_SERVICE, *IMAGE_SERVICES])
            )
        log.info("serving", extra={"listen": config.listen, "cgroups": world.cgroups.version})
        await asyncio.Event().wait()


async def _set_up_network(network: Network) -> None:
    """A network that is not there yet is a condition of the node, not a reason not to start."""
    try:
        await network.setup()
    except NetworkError as err:
        log.error("pod network is not ready", extra={"cause": str(err)})


async def _disconnect(world: World) -> None:
    for sandbox in world.sandboxes.values():
        supervisor, sandbox.supervisor = sandbox.supervisor, None
        if supervisor is not None:
            supervisor.connection.close()


def make_network(config: Config) -> Network:
    """The network that the flags ask for."""
    if config.cni_conf_dir is not None:
        return CNINetwork(config.cni_conf_dir, config.cni_bin_dir, config.state / "network")
    return BridgeNetwork(bridge=config.bridge, pod_cidr=config.pod_cidr, state_dir=config.state / "network")


def prepare(config: Config) -> None:
    """Make the directories. Raises OSError with a sentence."""
    socket_dir = Path(config.listen.removeprefix("unix://")).parent
    for directory, mode in ((config.root, 0o700), (config.state, 0o700), (socket_dir, 0o755)):
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=mode)
        except OSError as err:
            raise OSError(f"cannot make {directory}: {err.strerror}; choose a place that root can write") from err
    if socket_dir.stat().st_mode & stat.S_IWOTH and not socket_dir.stat().st_mode & stat.S_ISVTX:
        raise OSError(f"{socket_dir} is writable by everyone: whoever replaces the socket owns the node; fix its mode")


@contextmanager
def sole_owner(root: Path) -> Iterator[None]:
    """Hold the lock that says who works on ``root``. Raises OSError when another daemon does."""
    fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        os.close(fd)
        raise OSError(f"another cri_runtime works on {root}: stop it, or choose another --root") from err
    try:
        yield
    finally:
        os.close(fd)


@contextmanager
def _private_files() -> Iterator[None]:
    """What is made in the block only root can use: the socket is born with mode 0600."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)


def check_platform() -> None:
    """Exit with a sentence on what this program cannot run on."""
    if os.uname().machine not in ("x86_64", "aarch64"):
        sys.exit(f"error: cri_runtime runs on x86_64 and aarch64, not {os.uname().machine}")
