"""From CRI's messages to what the shim executes. Pure, but for looking at host paths and devices.

The result is JSON for ``shim/container.py``; ``shim/rootfs.py`` and ``shim/process.py`` say what each field does.
"""

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cri_runtime.cgroups import DeviceRule, Limits
from cri_runtime.cgroups.base import Join
from cri_runtime.images.manifest import ImageConfig
from cri_runtime.linux import bpf, profiles
from cri_runtime.pod import capabilities
from cri_runtime.pod.errors import InvalidConfig
from cri_runtime.pod.users import User, Wanted
from protos.cri import runtime_pb2 as cri

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/proc/interrupts"),
    *("/sys/firmware", "/sys/devices/virtual/powercap"),
)
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

DEVICE_RULES = (
    DeviceRule("c", None, None, "m"),
    DeviceRule("b", None, None, "m"),
    *(DeviceRule("c", 1, minor, "rwm") for minor in (3, 5, 7, 8, 9)),
    DeviceRule("c", 5, 0, "rwm"),
    DeviceRule("c", 5, 2, "rwm"),
    DeviceRule("c", 136, None, "rwm"),
)
"""The devices of the OCI runtime specification; nodes of others may be made but not used."""

PROPAGATION = {
    cri.PROPAGATION_PRIVATE: "private",
    cri.PROPAGATION_HOST_TO_CONTAINER: "slave",
    cri.PROPAGATION_BIDIRECTIONAL: "shared",
}

SECURITY = "config.linux.security_context"


@dataclass(frozen=True)
class Places:
    """Where things are on the host."""

    container: Path
    """The container's directory: spec, status, upper, work, rootfs."""
    sandbox: Path
    """The sandbox's state directory: hostname, hosts, resolv.conf, shm."""
    lower: Sequence[Path]
    join: Join
    cgroup_mounts: Sequence[tuple[str, str, str]]
    log: str


def build(
    name: str,
    config: cri.ContainerConfig,
    sandbox: cri.PodSandboxConfig,
    image: ImageConfig,
    user: User,
    places: Places,
    machine: str,
    available: int,
) -> dict[str, Any]:
    """The shim's spec. ``available``: mask of capabilities this host can give. Raises InvalidConfig."""
    security = config.linux.security_context
    options = sandbox.linux.security_context.namespace_options
    resources = config.linux.resources
    return {
        "container": name,
        "pid": _pid_mode(security.namespace_options),
        "target": security.namespace_options.target_id,
        "cgroup": {"tasks": places.join.tasks, "directory": places.join.directory, "oom_file": places.join.oom_file},
        "oom_score_adj": resources.oom_score_adj if config.linux.HasField("resources") else None,
        "privileged": security.privileged,
        "lower": [str(path) for path in places.lower],
        "upper": str(places.container / "upper"),
        "work": str(places.container / "work"),
        "rootfs": str(places.container / "rootfs"),
        "mounts": _mounts(config, places, security.readonly_rootfs),
        "devices": _device_nodes(config),
        "shm": "/dev/shm" if options.ipc == cri.NODE else str(places.sandbox / "shm"),
        "cgroup_mounts": [list(mount) for mount in places.cgroup_mounts],
        "masked": [] if security.privileged else list(security.masked_paths or MASKED),
        "readonly": [] if security.privileged else list(security.readonly_paths or READONLY),
        "readonly_rootfs": security.readonly_rootfs,
        "tty": config.tty,
        "stdin": config.stdin,
        "stdin_once": config.stdin_once,
        "log_path": places.log,
        "process": _process(config, sandbox, image, user, machine, available),
    }


def command_of(config: cri.ContainerConfig, image: ImageConfig) -> list[str]:
    """What runs: the config's command replaces the image's entrypoint and its arguments. Raises InvalidConfig."""
    if config.command:
        return [*config.command, *config.args]
    args = config.args or image.cmd or ()
    command = [*(image.entrypoint or ()), *args]
    if not command:
        raise InvalidConfig("config.command", "neither the container nor its image says what to run")
    return command


def wanted_user(config: cri.ContainerConfig, image: ImageConfig) -> Wanted:
    """Whom the container wants to run as."""
    security = config.linux.security_context
    user, _, group = image.user.partition(":")
    if security.HasField("run_as_user"):
        user, group = str(security.run_as_user.value), ""
    elif security.run_as_username:
        user, group = security.run_as_username, ""
    if security.HasField("run_as_group"):
        group = str(security.run_as_group.value)
    merge = security.supplemental_groups_policy == cri.Merge
    return Wanted(user, group, tuple(security.supplemental_groups), merge)


def environment(config: cri.ContainerConfig, image: ImageConfig, user: User, hostname: str) -> list[str]:
    """``NAME=value`` each; the container's win over the image's, and those over what every process expects."""
    values = {"PATH": PATH, "HOSTNAME": hostname, "HOME": user.home}
    if config.tty:
        values["TERM"] = "xterm"
    values.update(image.environment)
    values.update({pair.key: os.fsdecode(pair.value) for pair in config.envs})
    return [f"{name}={value}" for name, value in values.items()]


def _process(
    config: cri.ContainerConfig,
    sandbox: cri.PodSandboxConfig,
    image: ImageConfig,
    user: User,
    machine: str,
    available: int,
) -> dict[str, Any]:
    security = config.linux.security_context
    given = security.capabilities
    field = f"{SECURITY}.capabilities"
    names = capabilities.effective(given.add_capabilities, given.drop_capabilities, field)
    names = capabilities.ALL if security.privileged else names
    ambient = capabilities.parse(given.add_ambient_capabilities, f"{field}.add_ambient_capabilities")
    held = capabilities.mask(names | ambient) & available
    raised = capabilities.mask(ambient) & available
    return {
        "args": command_of(config, image),
        "env": environment(config, image, user, sandbox.hostname),
        "cwd": config.working_dir or image.working_dir or "/",
        "uid": user.uid,
        "gid": user.gid,
        "groups": list(user.groups),
        "bounding": held,
        "effective": held,
        "permitted": held,
        "inheritable": raised,
        "ambient": raised,
        "no_new_privs": security.no_new_privs,
        "seccomp": seccomp_program(security, names, machine).hex(),
        "rlimits": [],
    }


def seccomp_program(security: cri.LinuxContainerSecurityContext, names: frozenset[str], machine: str) -> bytes:
    """The filter, empty for none. CRI: a profile that is not set is unconfined. Raises InvalidConfig."""
    if security.privileged:
        return b""
    kind: int = security.seccomp.profile_type
    reference = security.seccomp.localhost_ref
    if not security.HasField("seccomp"):
        kind, reference = _old_seccomp(security.seccomp_profile_path)
    if kind == cri.SecurityProfile.RuntimeDefault:
        return profiles.default_program(names, machine)
    if kind == cri.SecurityProfile.Unconfined:
        return b""
    try:
        text = Path(reference).read_text()
        return bpf.assemble(profiles.parse_profile(text), machine)
    except (OSError, ValueError) as err:
        raise InvalidConfig(f"{SECURITY}.seccomp.localhost_ref", f'cannot use "{reference}": {err}') from err


def _old_seccomp(path: str) -> tuple[int, str]:
    """The deprecated string: ``runtime/default``, ``docker/default``, ``unconfined``, ``localhost/<path>``."""
    if path in ("runtime/default", "docker/default"):
        return cri.SecurityProfile.RuntimeDefault, ""
    if path in ("", "unconfined"):
        return cri.SecurityProfile.Unconfined, ""
    return cri.SecurityProfile.Localhost, path.removeprefix("localhost/")


def _pid_mode(options: cri.NamespaceOption) -> str:
    return {cri.POD: "pod", cri.CONTAINER: "container", cri.NODE: "host", cri.TARGET: "target"}[options.pid]


def _mounts(config: cri.ContainerConfig, places: Places, readonly_root: bool) -> list[dict[str, str]]:
    given = [_mount(mount, index) for index, mount in enumerate(config.mounts)]
    taken = {mount["target"].rstrip("/") for mount in given}
    made = [_row(places.sandbox / f, f"/etc/{f}", readonly_root) for f in ("hostname", "hosts", "resolv.conf")]
    return [mount for mount in made if mount["target"] not in taken] + given


def _row(source: Path, target: str, readonly: bool) -> dict[str, str]:
    return {"source": str(source), "target": target, "readonly": "ro" if readonly else "", "propagation": "private"}


def _mount(mount: cri.Mount, index: int) -> dict[str, str]:
    try:
        source = Path(mount.host_path).resolve(strict=True)
    except (OSError, RuntimeError) as err:
        text = f'"{mount.host_path}" does not exist on this node; create it'
        raise InvalidConfig(f"config.mounts[{index}].host_path", text) from err
    readonly = "rro" if mount.recursive_read_only else "ro" if mount.readonly else ""
    target = os.path.normpath("/" + mount.container_path)
    row = _row(source, target, False)
    return {**row, "readonly": readonly, "propagation": PROPAGATION[mount.propagation]}


def _device_nodes(config: cri.ContainerConfig) -> list[list[Any]]:
    """Rows for the shim's ``Devices``. A privileged container gets every device of the host."""
    if config.linux.security_context.privileged:
        return [_node(path, str(path.relative_to("/dev"))) for path in _devices_below(Path("/dev"))]
    nodes: list[list[Any]] = []
    for index, device in enumerate(config.devices):
        host, inside = Path(device.host_path), device.container_path or device.host_path
        if not inside.startswith("/dev/"):
            raise InvalidConfig(f"config.devices[{index}].container_path", "must lie below /dev")
        found = _devices_below(host) if host.is_dir() else [host]
        try:
            nodes += [_node(path, os.path.normpath(inside[5:] / path.relative_to(host))) for path in found]
        except (OSError, ValueError) as err:
            raise InvalidConfig(f"config.devices[{index}].host_path", f'"{host}" is no device: {err}') from err
    return nodes


_NOT_DEVICES = ("pts", "shm", "mqueue", "fd", "console", "null", "zero", "full", "random", "urandom", "tty", "ptmx")


def _devices_below(directory: Path) -> list[Path]:
    found: list[Path] = []
    for path in sorted(directory.iterdir()):
        if directory == Path("/dev") and path.name in _NOT_DEVICES:
            continue
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            found += _devices_below(path)
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            found.append(path)
    return found


def _node(path: Path, name: str) -> list[Any]:
    info = path.stat()
    if not (stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)):
        raise ValueError("neither a character nor a block device")
    kind = "b" if stat.S_ISBLK(info.st_mode) else "c"
    numbers = os.major(info.st_rdev), os.minor(info.st_rdev)
    return [name, kind, *numbers, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid]


def limits_of(resources: cri.LinuxContainerResources) -> Limits:
    """CRI's resources as cgroup limits; zero means: not given."""
    return Limits(
        cpu_shares=resources.cpu_shares,
        cpu_period_us=resources.cpu_period,
        cpu_quota_us=resources.cpu_quota,
        memory_bytes=resources.memory_limit_in_bytes,
        swap_bytes=resources.memory_swap_limit_in_bytes,
        cpuset_cpus=resources.cpuset_cpus,
        cpuset_mems=resources.cpuset_mems,
        hugepage_bytes={limit.page_size: limit.limit for limit in resources.hugepage_limits},
        unified=dict(resources.unified),
    )


def device_rules(config: cri.ContainerConfig, nodes: Sequence[Sequence[Any]]) -> tuple[DeviceRule, ...] | None:
    """The devices the container may use; None for a privileged one: all."""
    if config.linux.security_context.privileged:
        return None
    access = {device.container_path or device.host_path: device.permissions or "rwm" for device in config.devices}
    extra = [DeviceRule(kind, major, minor, _access(access, name)) for name, kind, major, minor, *_ in nodes]
    return (*DEVICE_RULES, *extra)


def _access(access: Mapping[str, str], name: str) -> str:
    given = next((value for path, value in access.items() if f"/dev/{name}".startswith(path)), "rwm")
    return "".join(letter for letter in "rwm" if letter in given) or "rwm"


def merged_resources(
    old: cri.LinuxContainerResources, change: cri.LinuxContainerResources
) -> cri.LinuxContainerResources:
    """``old`` with what ``change`` sets; its zero fields leave things as they are. Lists are replaced."""
    result = cri.LinuxContainerResources()
    result.CopyFrom(old)
    for field, value in change.ListFields():
        if field.name in ("hugepage_limits", "unified"):
            result.ClearField(field.name)
            result.MergeFrom(cri.LinuxContainerResources(**{field.name: value}))
        else:
            setattr(result, field.name, value)
    return result
