"""What a container is, as its user asked for it, and what that is in CRI's words. Pure.

The runtime keeps no config that could be asked for, so the whole of it travels in an annotation: what ``inspect``
shows and what ``start`` makes the next attempt from.
"""

import json
import shlex
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from protos.cri import runtime_pb2 as pb

ID_LABEL = "dev.knarr/container"
NAME_LABEL = "dev.knarr/container-name"
SPEC_ANNOTATION = "dev.knarr/container-spec"
NAMESPACE = "ctl-container"
LOG_NAME = "container.log"
CPU_PERIOD_US = 100_000
PROTOCOLS = ("tcp", "udp", "sctp")
"""In the order of CRI's Protocol."""


@dataclass(frozen=True)
class Port:
    """One published port. ``host_port`` 0: exposed only, or still to be chosen."""

    container_port: int
    host_port: int = 0
    host_ip: str = ""
    protocol: str = "tcp"

    @property
    def inside(self) -> str:
        """``8080/tcp``."""
        return f"{self.container_port}/{self.protocol}"


@dataclass(frozen=True)
class Mount:
    """One mount. ``kind``: bind, volume, tmpfs; ``source`` is the host's path, ``name`` a volume's."""

    kind: str
    target: str
    source: str = ""
    readonly: bool = False
    name: str = ""
    propagation: str = "rprivate"
    options: str = ""


@dataclass(frozen=True)
class Spec:
    """Everything asked for; what is empty is the image's or the runtime's."""

    id: str = ""
    name: str = ""
    image: str = ""
    image_id: str = ""
    created_ns: int = 0
    entrypoint: list[str] | None = None
    command: list[str] = field(default_factory=list)
    env: list[str] = field(default_factory=list)
    user: str = ""
    groups: list[int] = field(default_factory=list)
    workdir: str = ""
    hostname: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    detached: bool = False
    auto_remove: bool = False
    ports: list[Port] = field(default_factory=list)
    exposed: list[str] = field(default_factory=list)
    mounts: list[Mount] = field(default_factory=list)
    devices: list[list[str]] = field(default_factory=list)
    network: str = "bridge"
    pid: str = ""
    ipc: str = ""
    dns: list[str] = field(default_factory=list)
    dns_search: list[str] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    memory_bytes: int = 0
    memory_swap_bytes: int = 0
    nano_cpus: int = 0
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    read_only: bool = False
    privileged: bool = False
    cap_add: list[str] = field(default_factory=list)
    cap_drop: list[str] = field(default_factory=list)
    no_new_privileges: bool = False
    seccomp: str = "default"
    stop_signal: str = ""
    stop_timeout_s: int = 10

    @property
    def is_host_network(self) -> bool:
        """It shares the node's network."""
        return self.network == "host"


def encode(spec: Spec) -> str:
    """As JSON, for the annotation."""
    return json.dumps(asdict(spec))


def decode(text: str) -> Spec:
    """The reverse; fields of another version of us are left out. Raises ValueError for what is none."""
    row = json.loads(text)
    known = {name: value for name, value in row.items() if name in Spec.__dataclass_fields__}
    known["ports"] = [Port(**port) for port in known.get("ports", [])]
    known["mounts"] = [Mount(**mount) for mount in known.get("mounts", [])]
    return Spec(**known)


def command_line(spec: Spec, image: dict[str, Any]) -> list[str]:
    """What runs: ``--entrypoint`` also drops the image's CMD. ``image``: the OCI image's ``config``."""
    if spec.entrypoint is not None:
        return [*spec.entrypoint, *spec.command]
    return [*(image.get("Entrypoint") or []), *(spec.command or image.get("Cmd") or [])]


def shown_command(words: list[str]) -> str:
    """The command as ``ps`` shows it, in one line."""
    return " ".join(word if word.isprintable() and " " not in word else shlex.quote(word) for word in words)


def sandbox_config(spec: Spec, attempt: int, log_directory: str) -> "pb.PodSandboxConfig":
    """The pod sandbox of one attempt. Its uid is its name: so the runtime refuses a second with that name."""
    from protos.cri import runtime_pb2 as pb

    config = pb.PodSandboxConfig(
        metadata=pb.PodSandboxMetadata(name=spec.name, namespace=NAMESPACE, uid=spec.name, attempt=attempt),
        hostname="" if spec.is_host_network else spec.hostname or spec.id[:12],
        log_directory=log_directory,
        labels={**spec.labels, ID_LABEL: spec.id, NAME_LABEL: spec.name},
        annotations={SPEC_ANNOTATION: encode(spec)},
        port_mappings=[_port_mapping(port) for port in spec.ports],
    )
    if spec.dns or spec.dns_search:
        config.dns_config.CopyFrom(pb.DNSConfig(servers=spec.dns, searches=spec.dns_search))
    config.linux.sysctls.update(spec.sysctls)
    config.linux.security_context.privileged = spec.privileged
    config.linux.security_context.namespace_options.CopyFrom(_namespaces(spec))
    return config


def _port_mapping(port: Port) -> "pb.PortMapping":
    from protos.cri import runtime_pb2 as pb

    number: Any = PROTOCOLS.index(port.protocol)
    return pb.PortMapping(
        protocol=number, container_port=port.container_port, host_port=port.host_port, host_ip=port.host_ip
    )


def _namespaces(spec: Spec) -> "pb.NamespaceOption":
    from protos.cri import runtime_pb2 as pb

    return pb.NamespaceOption(
        network=pb.NODE if spec.is_host_network else pb.POD,
        pid=pb.NODE if spec.pid == "host" else pb.CONTAINER,
        ipc=pb.NODE if spec.ipc == "host" else pb.POD,
    )


def container_config(spec: Spec, attempt: int, tmpfs: dict[str, str]) -> "pb.ContainerConfig":
    """The container of one attempt. ``tmpfs``: where on the host the tmpfs of each target is mounted for now."""
    from protos.cri import runtime_pb2 as pb

    config = pb.ContainerConfig(
        metadata=pb.ContainerMetadata(name=spec.name, attempt=attempt),
        image=pb.ImageSpec(image=spec.image_id, user_specified_image=spec.image),
        command=_command(spec),
        args=[] if spec.entrypoint == [] else spec.command,
        working_dir=spec.workdir,
        envs=[pb.KeyValue(key=name, value=value.encode()) for name, _, value in (e.partition("=") for e in spec.env)],
        mounts=[_mount(mount, tmpfs) for mount in spec.mounts],
        devices=[pb.Device(host_path=h, container_path=c, permissions=p) for h, c, p in spec.devices],
        labels={**spec.labels, ID_LABEL: spec.id, NAME_LABEL: spec.name},
        log_path=LOG_NAME,
        stdin=spec.stdin,
        stdin_once=spec.stdin_once,
        tty=spec.tty,
        stop_signal=_signal(spec.stop_signal),
    )
    config.linux.resources.CopyFrom(_resources(spec))
    config.linux.security_context.CopyFrom(_security(spec))
    return config


def _command(spec: Spec) -> list[str]:
    """CRI's command, which drops the image's entrypoint and CMD. An empty ``--entrypoint`` leaves the words alone."""
    if spec.entrypoint is None:
        return []
    return spec.entrypoint or spec.command


def _signal(name: str) -> Any:
    from protos.cri import runtime_pb2 as pb

    return pb.Signal.Value(f"SIGNAL_{name}") if name else pb.SIGNAL_RUNTIME_DEFAULT


def _mount(mount: Mount, tmpfs: dict[str, str]) -> "pb.Mount":
    from protos.cri import runtime_pb2 as pb

    modes: dict[str, Any] = {
        "rslave": pb.PROPAGATION_HOST_TO_CONTAINER,
        "slave": pb.PROPAGATION_HOST_TO_CONTAINER,
        "rshared": pb.PROPAGATION_BIDIRECTIONAL,
        "shared": pb.PROPAGATION_BIDIRECTIONAL,
    }
    return pb.Mount(
        container_path=mount.target,
        host_path=tmpfs[mount.target] if mount.kind == "tmpfs" else mount.source,
        readonly=mount.readonly,
        propagation=modes.get(mount.propagation, pb.PROPAGATION_PRIVATE),
    )


def _resources(spec: Spec) -> "pb.LinuxContainerResources":
    from protos.cri import runtime_pb2 as pb

    return pb.LinuxContainerResources(
        memory_limit_in_bytes=spec.memory_bytes,
        memory_swap_limit_in_bytes=spec.memory_swap_bytes,
        cpu_period=CPU_PERIOD_US if spec.nano_cpus else 0,
        cpu_quota=spec.nano_cpus * CPU_PERIOD_US // 1_000_000_000,
        cpu_shares=spec.cpu_shares,
        cpuset_cpus=spec.cpuset_cpus,
    )


def _security(spec: Spec) -> "pb.LinuxContainerSecurityContext":
    from protos.cri import runtime_pb2 as pb

    security = pb.LinuxContainerSecurityContext(
        capabilities=pb.Capability(add_capabilities=spec.cap_add, drop_capabilities=spec.cap_drop),
        privileged=spec.privileged,
        readonly_rootfs=spec.read_only,
        no_new_privs=spec.no_new_privileges,
        supplemental_groups=spec.groups,
        namespace_options=_namespaces(spec),
    )
    profile = pb.SecurityProfile
    kinds = {"default": profile.RuntimeDefault, "unconfined": profile.Unconfined}
    security.seccomp.profile_type = kinds.get(spec.seccomp, profile.Localhost)
    if spec.seccomp not in kinds:
        security.seccomp.localhost_ref = spec.seccomp
    user, _, group = spec.user.partition(":")
    if user.isdigit():
        security.run_as_user.value = int(user)
    elif user:
        security.run_as_username = user
    if group:
        security.run_as_group.value = int(group)
    return security
