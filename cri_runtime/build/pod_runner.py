"""RUN in a pod of its own: namespaces, network, capabilities and seccomp as any pod's, but on no list.

It has no record, so CRI does not show it and no kubelet takes it for a stray. A daemon that is killed meanwhile finds
its state directory and container directory without records at the next start and removes them, as it does for every
pod that was never announced; the cgroup goes with :meth:`PodRunner.after_recovery`.
"""

import asyncio
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cri_runtime.build.binds import MOUNTS, make_binds, unmount_below
from cri_runtime.build.mounts import Bound
from cri_runtime.build.runner import Output, Ran, RunError
from cri_runtime.build.state import SCRIPT_PATH, RunCommand
from cri_runtime.images.manifest import ImageConfig
from cri_runtime.network.errors import NetworkError
from cri_runtime.network.types import PodIdentity
from cri_runtime.pod import files, machine, spec
from cri_runtime.pod.client import Supervisor
from cri_runtime.pod.errors import PodError
from cri_runtime.pod.sandboxes import SHM_BYTES, unmount
from cri_runtime.pod.users import User, Wanted, read_from_layers, resolve
from cri_runtime.pod.world import World
from cri_runtime.shim.supervisor import NETNS
from protos.cri import runtime_pb2 as cri

_HOSTNAME = "build"
_PIPE_BYTES = 1 << 20
_READ_BYTES = 64 << 10


class PodRunner:
    """See :class:`cri_runtime.build.runner.Runner`."""

    def __init__(self, world: World) -> None:
        self._world = world
        digest = hashlib.sha256(os.fsencode(world.root)).hexdigest()
        self.cgroup = f"/knarr-build-{digest[:8]}"
        """The parent of all commands' cgroups, this root's own; absent while nothing runs."""

    @classmethod
    def after_recovery(cls, world: World) -> "PodRunner":
        """The runner of a daemon that has just recovered: first removes what a killed one's builds left."""
        runner = cls(world)
        runner._discard_leftovers()
        return runner

    def _discard_leftovers(self) -> None:
        """Remove the cgroups of builds that a killed daemon left. Their processes are dead: their supervisor is."""
        for state in (self._world.state / "pods").glob("*"):
            unmount_below(state)
            if not any(state.joinpath(MOUNTS).glob("*")):
                continue
            shutil.rmtree(state, ignore_errors=True)
        for name in self._world.cgroups.children(self.cgroup):
            self._world.cgroups.remove(f"{self.cgroup}/{name}")
        self._world.cgroups.remove(self.cgroup)

    @asynccontextmanager
    async def run(
        self, command: RunCommand, lower: Sequence[Path], output: Output, mounts: Sequence[Bound] = ()
    ) -> AsyncIterator[Ran]:
        """See the protocol."""
        run = _Run(self._world, f"{self.cgroup}/{secrets.token_hex(16)}", command, lower, mounts)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(_finished, run)
            try:
                code = await run.execute(output)
            except (PodError, NetworkError) as err:
                raise RunError(str(err)) from err
            yield Ran(code, run.home / "upper")


async def _finished(run: "_Run") -> None:
    """Clean up to the end, also when the build is cancelled meanwhile."""
    await asyncio.shield(run.clean_up())


class _Run:
    """One command."""

    def __init__(
        self, world: World, cgroup: str, command: RunCommand, lower: Sequence[Path], mounts: Sequence[Bound]
    ) -> None:
        self._world = world
        self._cgroup = cgroup
        self._command = command
        self._lower = lower
        self._mounts = mounts
        self.id = secrets.token_hex(32)
        self.home = world.container_home(self.id)
        self._state = world.sandbox_state(self.id)
        self._supervisor: Supervisor | None = None
        self._exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def execute(self, output: Output) -> int:
        """Make the pod, run the command, return its exit code. Raises PodError, NetworkError, OSError."""
        for name in ("upper", "work", "rootfs"):
            (self.home / name).mkdir(parents=True)
        (self._state / "empty").mkdir(parents=True, mode=0o700)
        self._write_files(())
        pod = self._pod()
        self._supervisor = await Supervisor.start(self._world.zygote, pod, self._state, self._on_event, self._on_end)
        await self._attach()
        wanted = [*self._mounts, *_script(self._command)]
        binds = await asyncio.to_thread(make_binds, wanted, self.home, self._state)
        document = self._spec()
        document["mounts"] += binds
        self._world.cgroups.create(self._cgroup, replace(spec.limits_of(_NO_LIMITS), devices=spec.DEVICE_RULES))
        document["cgroup"]["tasks"] = self._world.cgroups.join(self._cgroup).tasks
        await asyncio.to_thread((self.home / "spec.json").write_text, json.dumps(document))
        async with _lines(self._log, output):
            await self._start(self._supervisor)
            return await self._exited

    async def _attach(self) -> None:
        """Give the pod a network, unless the command wants none or the host's."""
        if self._command.network == "default":
            identity = PodIdentity("knarr-build", "build", self.id)
            network = await self._world.network.attach(self.id, self._state / NETNS, identity, [])
            self._write_files(network.ips)

    async def _start(self, supervisor: Supervisor) -> None:
        try:
            await supervisor.request("start", container=self.id, directory=str(self.home))
        except PodError as err:
            error = {key: getattr(err, key, "") for key in ("step", "errno", "path", "text")}
            raise RunError(machine.start_error_text(error) if error["step"] else str(err)) from err

    def _on_event(self, event: dict[str, Any]) -> None:
        if event["event"] == "exited" and not self._exited.done():
            self._exited.set_result(int(event["status"]["exit_code"]))

    def _on_end(self) -> None:
        if not self._exited.done():
            self._exited.set_exception(RunError("the supervisor of the command died"))

    @property
    def _log(self) -> Path:
        return self._state / "output"

    def _write_files(self, ips: Sequence[str]) -> None:
        host_resolv = Path("/etc/resolv.conf")
        (self._state / "hostname").write_text(f"{_HOSTNAME}\n")
        (self._state / "hosts").write_text(files.hosts(ips, _HOSTNAME))
        (self._state / "resolv.conf").write_text(host_resolv.read_text() if host_resolv.exists() else "")

    def _pod(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "state": str(self._state),
            "network": "node" if self._command.network == "host" else "pod",
            "ipc": "pod",
            "pid": "container",
            "hostname": _HOSTNAME,
            "sysctls": {},
            "shm_bytes": SHM_BYTES,
        }

    def _spec(self) -> dict[str, Any]:
        """A container's document, as a CRI request for the same would make it."""
        config = cri.ContainerConfig(
            command=list(self._command.argv),
            working_dir=self._command.working_dir,
            envs=[cri.KeyValue(key=k, value=v.encode()) for k, v in self._command.environment.items()],
        )
        config.linux.security_context.seccomp.profile_type = cri.SecurityProfile.RuntimeDefault
        places = spec.Places(
            self.home,
            self._state,
            self._lower,
            self._world.cgroups.join(self._cgroup),
            self._world.cgroups.mounts(),
            str(self._log),
        )
        return spec.build(
            self.id,
            config,
            cri.PodSandboxConfig(hostname=_HOSTNAME),
            ImageConfig(),
            self._user(),
            places,
            os.uname().machine,
            self._world.available_capabilities,
        )

    def _user(self) -> User:
        user, _, group = self._command.user.partition(":")
        passwd, groups = (read_from_layers(self._lower, f"etc/{name}") for name in ("passwd", "group"))
        return resolve(Wanted(user, group), passwd, groups)

    async def clean_up(self) -> None:
        """Undo everything, whatever came of it."""
        if self._supervisor is not None:
            try:
                await self._supervisor.request("stop")
            except PodError:
                pass  # it is dead, and its pod with it
            netns = self._state / NETNS
            if self._command.network == "default":
                await self._world.network.detach(self.id, netns if netns.exists() else None)
            await self._supervisor.quit()
        unmount(self._state)
        unmount_below(self._state)
        self._world.cgroups.remove(self._cgroup)
        parent = self._cgroup.rpartition("/")[0]
        if not self._world.cgroups.children(parent):
            self._world.cgroups.remove(parent)
        await asyncio.to_thread(shutil.rmtree, self._state, ignore_errors=True)
        await asyncio.to_thread(shutil.rmtree, self.home, ignore_errors=True)


def _script(command: RunCommand) -> list[Bound]:
    if not command.script:
        return []
    return [Bound(SCRIPT_PATH, readonly=True, content=command.script.encode(), mode=0o755)]


_NO_LIMITS = cri.LinuxContainerResources()


@asynccontextmanager
async def _lines(path: Path, output: Output) -> AsyncIterator[None]:
    """Read a container log, a pipe instead of a file, line by line while it is written; to its end at the block's."""
    os.mkfifo(path, 0o600)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)  # both ends: writers may come and go
    fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    reader = _LogReader(fd, output)
    loop = asyncio.get_running_loop()
    loop.add_reader(fd, reader.read)
    try:
        yield
    finally:
        loop.remove_reader(fd)
        reader.read()
        reader.finish()
        os.close(fd)


class _LogReader:
    """Entries of the CRI log format, ``time stream P|F text``, as lines."""

    def __init__(self, fd: int, output: Output) -> None:
        self._fd = fd
        self._output = output
        self._rest = b""
        self._partial = b""

    def read(self) -> None:
        """Take what waits in the pipe."""
        while True:
            try:
                data = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                return
            *entries, self._rest = (self._rest + data).split(b"\n")
            for entry in entries:
                self._take(entry)

    def _take(self, entry: bytes) -> None:
        _, _, tag, text = entry.split(b" ", 3)
        self._partial += text
        if tag != b"P":
            self.finish()

    def finish(self) -> None:
        """A last line without end is a line."""
        if self._partial:
            self._output(self._partial.decode("utf-8", "replace"))
        self._partial = b""
