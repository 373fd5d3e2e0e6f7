"""The network of a node with a CNI configuration: others' plugins attach pods, this runs them and keeps their results.

A record is written before the first plugin runs and removed after the last one has cleaned up, so that after a crash
:meth:`CNINetwork.reconcile` can undo even an ADD of which nobody knows how far it came: DEL is made for that.

Source: CNI specification 1.0.0.
"""

import asyncio
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cri_runtime.linux import netlink
from cri_runtime.linux.netlink import Netlink
from cri_runtime.network.cni_config import (
    NetworkConfig,
    addresses_of,
    arguments,
    find_config,
    request_of,
    runtime_config,
)
from cri_runtime.network.errors import ConfigInvalid, KernelRefused, NetworkError, PluginFailed
from cri_runtime.network.types import Attachment, PodIdentity, PortMapping

log = logging.getLogger(__name__)

INTERFACE = "eth0"
PLUGIN_TIMEOUT_S = 60.0
RESULT_BYTES = 1 << 20


@dataclass
class Record:
    """What DEL and CHECK need of an ADD: written before it, completed after it."""

    sandbox_id: str
    netns: str
    args: str
    runtime: dict[str, Any]
    config: dict[str, Any]
    result: dict[str, Any] | None = None
    path: Path = field(default=Path(), repr=False)

    def save(self) -> None:
        """Write the record whole: draft, then rename."""
        data = {key: value for key, value in asdict(self).items() if key != "path"}
        draft = self.path.with_suffix(".tmp")
        draft.write_text(json.dumps(data))
        draft.rename(self.path)

    @classmethod
    def load(cls, path: Path) -> "Record":
        """Read a record."""
        return cls(**json.loads(path.read_bytes()), path=path)


class CNINetwork:
    """Runs the plugins of the first configuration in ``conf_dir``, found in ``bin_dir``. See :class:`types.Network`.

    The configuration is read for each pod, so that it may come, change and go while pods run; each pod is cleaned up
    with the one it was attached with.
    """

    def __init__(self, conf_dir: Path, bin_dir: Path, state_dir: Path) -> None:
        self._conf_dir = conf_dir
        self._bin_dir = bin_dir
        self._records = state_dir / "cni"
        self._busy: dict[str, asyncio.Lock] = {}

    async def setup(self) -> None:
        """Make the place for the records."""
        self._records.mkdir(parents=True, exist_ok=True)
        for draft in self._records.glob("*.tmp"):  # a crash between writing and renaming
            draft.unlink()

    async def attach(
        self, sandbox_id: str, netns: Path, pod: PodIdentity, port_mappings: Iterable[PortMapping] = ()
    ) -> Attachment:
        """ADD with every plugin, in order. Raises NetworkError after undoing what was done."""
        config = self._config()
        record = Record(
            sandbox_id=sandbox_id,
            netns=str(netns),
            args=arguments(pod, sandbox_id),
            runtime=runtime_config(port_mappings),
            config={"name": config.name, "version": config.version, "plugins": list(config.plugins)},
            path=self._path(sandbox_id),
        )
        async with self._lock(sandbox_id):
            record.save()
            try:
                raise_loopback(netns)
                record.result = await self._add(config, record)
            except BaseException:
                await asyncio.shield(self._delete(record))
                raise
            record.save()
        addresses, device, mac = addresses_of(record.result)
        return Attachment(addresses, device, mac)

    async def check(self, sandbox_id: str) -> None:
        """CHECK with every plugin: is the pod's network still as ADD left it? Raises NetworkError when not."""
        record = Record.load(self._path(sandbox_id))
        config = NetworkConfig(**record.config)
        for plugin in config.plugins:
            await self._run(config, plugin, "CHECK", record, record.result)

    async def detach(self, sandbox_id: str, netns: Path | None = None) -> None:
        """DEL with every plugin, last first. Idempotent.

        Without a namespace plugins free what they hold elsewhere; what they made inside went with it. The recorded path
        is not asked: a process id in it may be another pod's by now.
        """
        path = self._path(sandbox_id)
        async with self._lock(sandbox_id):
            if path.exists():
                record = Record.load(path)
                record.netns = str(netns) if netns is not None and netns.exists() else ""
                await self._delete(record, strict=True)
        self._busy.pop(sandbox_id, None)

    async def reconcile(self, live: set[str]) -> None:
        """DEL for every record whose sandbox is not in ``live``."""
        for path in self._records.glob("*.json"):
            if path.stem not in live:
                await self.detach(path.stem)

    def ready(self) -> tuple[bool, str, str]:
        """CRI's NetworkReady condition: whether there is a usable configuration."""
        try:
            self._config()
        except NetworkError as err:
            return False, "NetworkPluginNotReady", str(err)
        return True, "", ""

    async def teardown(self) -> None:
        """Undo what is left of any pod. What plugins made for all pods (bridges) is theirs: CNI has no word for it."""
        await self.reconcile(set())

    async def aclose(self) -> None:
        """Nothing is held between calls."""

    # --- plugins -----------------------------------------------------------------------------------------------------

    def _config(self) -> NetworkConfig:
        config = find_config(self._conf_dir)
        if config is None:
            raise ConfigInvalid(f"no CNI configuration in {self._conf_dir}: install a network plugin's .conflist there")
        return config

    async def _add(self, config: NetworkConfig, record: Record) -> dict[str, Any]:
        result: dict[str, Any] | None = None
        for plugin in config.plugins:
            result = await self._run(config, plugin, "ADD", record, result)
        return result or {}

    async def _delete(self, record: Record, strict: bool = False) -> None:
        config = NetworkConfig(**record.config)
        failure: NetworkError | None = None
        for plugin in reversed(config.plugins):
            try:
                await self._run(config, plugin, "DEL", record, record.result)
            except NetworkError as err:  # the others clean up all the same
                log.warning("CNI DEL failed", extra={"sandbox": record.sandbox_id, "cause": str(err)})
                failure = failure or err
        if failure is None:
            record.path.unlink(missing_ok=True)
        elif strict:
            raise failure

    async def _run(
        self,
        config: NetworkConfig,
        plugin: Mapping[str, Any],
        command: str,
        record: Record,
        previous: dict[str, Any] | None,
    ) -> dict[str, Any] | None:
        """One plugin, one command. Raises PluginFailed."""
        name = str(plugin["type"])
        request = json.dumps(request_of(config, plugin, record.runtime, previous)).encode()
        environment = {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": record.sandbox_id,
            "CNI_NETNS": record.netns,
            "CNI_IFNAME": INTERFACE,
            "CNI_ARGS": record.args,
            "CNI_PATH": str(self._bin_dir),
        }
        code, out, complaint = await execute(self._bin_dir / name, environment, request, name, command)
        if code != 0:
            raise failure_of(name, command, code, out, complaint)
        try:
            return json.loads(out) if out.strip() else None
        except ValueError as bad:
            raise PluginFailed(name, command, 6, f"its answer is no JSON: {out[:200]!r}") from bad

    def _path(self, sandbox_id: str) -> Path:
        return self._records / f"{sandbox_id}.json"

    def _lock(self, sandbox_id: str) -> asyncio.Lock:
        return self._busy.setdefault(sandbox_id, asyncio.Lock())


async def execute(
    program: Path, environment: dict[str, str], stdin: bytes, name: str, command: str
) -> tuple[int, bytes, bytes]:
    """Run a plugin to its end. Raises PluginFailed when it cannot be run or takes too long; it is killed then."""
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            program, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, limit=RESULT_BYTES
        )
    except OSError as err:
        raise PluginFailed(name, command, 5, f"cannot run {program}: {err.strerror}") from err
    try:
        async with asyncio.timeout(PLUGIN_TIMEOUT_S):
            out, complaint = await process.communicate(stdin)
    except TimeoutError as late:
        raise PluginFailed(name, command, 11, f"no answer within {PLUGIN_TIMEOUT_S:.0f} s") from late
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, out, complaint


def failure_of(name: str, command: str, code: int, out: bytes, complaint: bytes) -> PluginFailed:
    """A plugin's own words: the error object on its stdout, else its stderr."""
    try:
        said = json.loads(out)
        return PluginFailed(name, command, int(said["code"]), str(said["msg"]), str(said.get("details", "")))
    except (ValueError, KeyError, TypeError):
        text = (complaint or out).decode(errors="replace").strip()
        return PluginFailed(name, command, code, text or f"exit code {code}")


def raise_loopback(netns: Path) -> None:
    """Bring the namespace's loopback up: no plugin of a pod's list does, runtimes do. Raises KernelRefused."""
    try:
        descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with Netlink.inside(descriptor) as pod:
                pod.request(netlink.set_link_up(netlink.LOOPBACK_INDEX))
        finally:
            os.close(descriptor)
    except OSError as err:
        raise KernelRefused(f"cannot bring up loopback in {netns}: {err}") from err
