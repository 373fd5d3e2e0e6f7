"""From a pod's spec to the CRI messages that make it: sandbox and container configs, labels, paths. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from control.kubelet import qos
from control.kubelet.env import ConfigError, expand
from control.kubelet.plan import grace_of, spec_hash
from control.kubelet.state import (
    BACKOFF,
    CONTAINER_NAME,
    GRACE,
    HASH,
    MESSAGE_PATH,
    POD_NAME,
    POD_NAMESPACE,
    POD_UID,
    RESTART_COUNT,
)
from protos.cri import runtime_pb2 as cri
from protos.k8s import core_v1_pb2 as core

DEFAULT_MASKED = (
    "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
)  # fmt: skip
DEFAULT_READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
PROTOCOLS = {"TCP": cri.TCP, "UDP": cri.UDP, "SCTP": cri.SCTP}
PROPAGATION = {
    "HostToContainer": cri.PROPAGATION_HOST_TO_CONTAINER,
    "Bidirectional": cri.PROPAGATION_BIDIRECTIONAL,
}
HOSTNAME_MAX = 63


@dataclass(frozen=True)
class DNS:
    """The node's resolver: what pods with dnsPolicy Default get, and what cluster DNS is put before."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    cluster: tuple[str, ...] = ()
    domain: str = "cluster.local"


@dataclass(frozen=True)
class Node:
    """The facts about this node that go into containers."""

    name: str
    ip: str = ""
    log_root: str = ""
    memory_bytes: int = 0
    systemd_cgroups: bool = False
    dns: DNS = field(default_factory=DNS)


@dataclass(frozen=True)
class Inputs:
    """What was prepared for one container before it is created.

    ``volumes`` maps volume names to host paths; ``mounts`` are further mounts (hosts file, termination log).
    """

    environment: Mapping[str, str | bytes]
    volumes: Mapping[str, str]
    image_ref: str
    image_user: "str | int | None" = None
    mounts: Sequence[cri.Mount] = ()
    message_path: str = ""


def parse_resolv_conf(text: str) -> DNS:
    """The resolver that resolv.conf(5) text describes."""
    servers: list[str] = []
    searches: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            servers.append(words[1])
        elif words[:1] == ["search"]:
            searches = tuple(words[1:])
        elif words[:1] == ["options"]:
            options += words[1:]
    return DNS(tuple(servers), searches, tuple(options))


def dns_config(pod: core.Pod, dns: DNS) -> cri.DNSConfig:
    """The pod's resolver by spec.dnsPolicy and spec.dnsConfig."""
    policy = pod.spec.dnsPolicy or "ClusterFirst"
    config = cri.DNSConfig()
    clustered = policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not pod.spec.hostNetwork)
    if clustered and dns.cluster:
        config.servers.extend(dns.cluster)
        config.searches.extend(f"{part}{dns.domain}" for part in (f"{pod.metadata.namespace}.svc.", "svc.", ""))
        config.searches.extend(dns.searches)
        config.options.append("ndots:5")
    elif policy != "None":
        config.servers.extend(dns.servers)
        config.searches.extend(dns.searches)
        config.options.extend(dns.options)
    extra = pod.spec.dnsConfig
    config.servers.extend(s for s in extra.nameservers if s not in config.servers)
    config.searches.extend(s for s in extra.searches if s not in config.searches)
    config.options.extend(f"{o.name}:{o.value}" if o.value else o.name for o in extra.options)
    return config


def hostname_of(pod: core.Pod) -> str:
    """The pod's hostname: spec.hostname, else its name, cut to 63 characters."""
    return (pod.spec.hostname or pod.metadata.name)[:HOSTNAME_MAX].rstrip("-.")


def log_directory(pod: core.Pod, node: Node) -> str:
    """Where the pod's logs are: ``<root>/<namespace>_<name>_<uid>``."""
    return f"{node.log_root}/{pod.metadata.namespace}_{pod.metadata.name}_{pod.metadata.uid}"


def sandbox_config(pod: core.Pod, attempt: int, node: Node) -> cri.PodSandboxConfig:
    """The CRI config of the pod's sandbox number ``attempt``."""
    config = cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(
            name=pod.metadata.name, uid=pod.metadata.uid, namespace=pod.metadata.namespace, attempt=attempt
        ),
        hostname="" if pod.spec.hostNetwork else hostname_of(pod),
        log_directory=log_directory(pod, node),
        dns_config=dns_config(pod, node.dns),
        labels={**pod.metadata.labels, **_pod_labels(pod)},
        annotations={**pod.metadata.annotations, GRACE: str(grace_of(pod))},
    )
    config.port_mappings.extend(_port_mappings(pod))
    config.linux.CopyFrom(_linux_sandbox(pod, node))
    return config


def _pod_labels(pod: core.Pod) -> dict[str, str]:
    return {POD_NAME: pod.metadata.name, POD_NAMESPACE: pod.metadata.namespace, POD_UID: pod.metadata.uid}


def _port_mappings(pod: core.Pod) -> Iterable[cri.PortMapping]:
    if pod.spec.hostNetwork:
        return
    for spec in pod.spec.containers:
        for port in spec.ports:
            yield cri.PortMapping(
                protocol=PROTOCOLS.get(port.protocol, cri.TCP),
                container_port=port.containerPort,
                host_port=port.hostPort,
                host_ip=port.hostIP,
            )


def _namespaces(pod: core.Pod) -> cri.NamespaceOption:
    shared = pod.spec.shareProcessNamespace
    return cri.NamespaceOption(
        network=cri.NODE if pod.spec.hostNetwork else cri.POD,
        pid=cri.NODE if pod.spec.hostPID else cri.POD if shared else cri.CONTAINER,
        ipc=cri.NODE if pod.spec.hostIPC else cri.POD,
    )


def _linux_sandbox(pod: core.Pod, node: Node) -> cri.LinuxPodSandboxConfig:
    context = pod.spec.securityContext
    linux = cri.LinuxPodSandboxConfig(
        cgroup_parent=qos.cgroup_parent(pod, node.systemd_cgroups),
        sysctls={entry.name: entry.value for entry in context.sysctls},
        resources=qos.pod_resources(pod),
    )
    security = linux.security_context
    security.namespace_options.CopyFrom(_namespaces(pod))
    security.privileged = any(spec.securityContext.privileged for spec in pod.spec.containers)
    security.seccomp.CopyFrom(_profile(context.seccompProfile, cri.SecurityProfile.RuntimeDefault))
    if context.HasField("runAsUser"):
        security.run_as_user.value = context.runAsUser
        if context.HasField("runAsGroup"):
            security.run_as_group.value = context.runAsGroup
    security.supplemental_groups.extend(_groups(pod))
    return linux


def _groups(pod: core.Pod) -> list[int]:
    context = pod.spec.securityContext
    return [*context.supplementalGroups, *([context.fsGroup] if context.HasField("fsGroup") else [])]


def _profile(profile: core.SeccompProfile | core.AppArmorProfile, unset: int) -> cri.SecurityProfile:
    kinds = {
        "RuntimeDefault": cri.SecurityProfile.RuntimeDefault,
        "Unconfined": cri.SecurityProfile.Unconfined,
        "Localhost": cri.SecurityProfile.Localhost,
    }
    kind = kinds.get(profile.type, unset)
    return cri.SecurityProfile(profile_type=kind, localhost_ref=profile.localhostProfile)  # type: ignore[arg-type]


def container_config(
    pod: core.Pod, spec: core.Container, attempt: int, backoff_s: float, node: Node, inputs: Inputs
) -> cri.ContainerConfig:
    """The CRI config of instance ``attempt`` of container ``spec``. Raises ConfigError."""
    variables = inputs.environment
    config = cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name=spec.name, attempt=attempt),
        image=cri.ImageSpec(image=inputs.image_ref, user_specified_image=spec.image),
        command=[expand(word, variables) for word in spec.command],
        args=[expand(word, variables) for word in spec.args],
        working_dir=spec.workingDir,
        envs=[cri.KeyValue(key=key, value=_bytes(value)) for key, value in variables.items()],
        labels={**_pod_labels(pod), CONTAINER_NAME: spec.name},
        annotations=_annotations(spec, attempt, backoff_s, inputs.message_path),
        log_path=f"{spec.name}/{attempt}.log",
        stdin=spec.stdin,
        stdin_once=spec.stdinOnce,
        tty=spec.tty,
    )
    config.mounts.extend(_mounts(pod, spec, inputs))
    config.linux.resources.CopyFrom(qos.container_resources(pod, spec, node.memory_bytes))
    config.linux.security_context.CopyFrom(_security(pod, spec, inputs.image_user))
    if spec.lifecycle.stopSignal:
        config.stop_signal = cri.Signal.Value(f"SIGNAL_{spec.lifecycle.stopSignal}")  # type: ignore[assignment]
    return config


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def _annotations(spec: core.Container, attempt: int, backoff_s: float, message_path: str) -> dict[str, str]:
    notes = {HASH: spec_hash(spec), RESTART_COUNT: str(attempt), BACKOFF: str(backoff_s)}
    return {**notes, MESSAGE_PATH: message_path} if message_path else notes


def _mounts(pod: core.Pod, spec: core.Container, inputs: Inputs) -> Iterable[cri.Mount]:
    for mount in spec.volumeMounts:
        path = inputs.volumes.get(mount.name)
        if path is None:
            raise ConfigError(f"volumeMount {mount.mountPath}: the pod has no volume {mount.name}")
        sub = expand(mount.subPathExpr, inputs.environment) if mount.subPathExpr else mount.subPath
        if sub and (sub.startswith("/") or ".." in sub.split("/")):
            raise ConfigError(f"volumeMount {mount.mountPath}: subPath must be relative and stay inside the volume")
        yield cri.Mount(
            container_path=mount.mountPath if mount.mountPath.startswith("/") else "/" + mount.mountPath,
            host_path=f"{path}/{sub}" if sub else path,
            readonly=mount.readOnly,
            propagation=PROPAGATION.get(mount.mountPropagation, cri.PROPAGATION_PRIVATE),
        )
    taken = {mount.mountPath for mount in spec.volumeMounts}
    yield from (mount for mount in inputs.mounts if mount.container_path not in taken)


def _security(pod: core.Pod, spec: core.Container, image_user: "str | int | None") -> cri.LinuxContainerSecurityContext:
    own, shared = spec.securityContext, pod.spec.securityContext
    security = cri.LinuxContainerSecurityContext(
        privileged=own.privileged,
        namespace_options=_namespaces(pod),
        readonly_rootfs=own.readOnlyRootFilesystem,
        no_new_privs=own.HasField("allowPrivilegeEscalation") and not own.allowPrivilegeEscalation,
        supplemental_groups=_groups(pod),
        capabilities=cri.Capability(add_capabilities=own.capabilities.add, drop_capabilities=own.capabilities.drop),
    )
    _run_as(security, own, shared, image_user)
    if shared.supplementalGroupsPolicy == "Strict":
        security.supplemental_groups_policy = cri.Strict
    profile = own.seccompProfile if own.HasField("seccompProfile") else shared.seccompProfile
    security.seccomp.CopyFrom(_profile(profile, cri.SecurityProfile.Unconfined))
    if own.HasField("appArmorProfile") or shared.HasField("appArmorProfile"):
        armor = own.appArmorProfile if own.HasField("appArmorProfile") else shared.appArmorProfile
        security.apparmor.CopyFrom(_profile(armor, cri.SecurityProfile.RuntimeDefault))
    if not own.privileged and own.procMount != "Unmasked":
        security.masked_paths.extend(DEFAULT_MASKED)
        security.readonly_paths.extend(DEFAULT_READONLY)
    return security


def _run_as(
    security: cri.LinuxContainerSecurityContext,
    own: core.SecurityContext,
    shared: core.PodSecurityContext,
    image_user: "str | int | None",
) -> None:
    """Who the first process runs as: the container's word, else the pod's, else the image's."""
    user = (
        own.runAsUser if own.HasField("runAsUser") else shared.runAsUser if shared.HasField("runAsUser") else image_user
    )
    group = (
        own.runAsGroup if own.HasField("runAsGroup") else shared.runAsGroup if shared.HasField("runAsGroup") else None
    )
    non_root = own.runAsNonRoot if own.HasField("runAsNonRoot") else shared.runAsNonRoot
    if non_root and user is not None and not isinstance(user, int):
        raise ConfigError(
            f"container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root"
        )
    if non_root and not user:
        raise ConfigError("container has runAsNonRoot and image will run as root")
    if isinstance(user, int):
        security.run_as_user.value = user
    elif user:
        security.run_as_username = user
    if group is not None:
        if user is None:
            security.run_as_user.value = 0
        security.run_as_group.value = group
