"""Pure: what CRI demands of a request before anything is made."""

import os
import re
from collections.abc import Iterable

from cri_runtime.pod.errors import InvalidConfig
from protos.cri import runtime_pb2 as cri

_NAMESPACED_SYSCTLS = ("kernel.shm", "kernel.msg", "fs.mqueue.")
_SYSCTL_NAME = re.compile(r"[a-zA-Z0-9_]+([./][a-zA-Z0-9_-]+)+\Z")
HOSTNAME_MAX = 64


def validate_sandbox(config: cri.PodSandboxConfig, handler: str, handlers: Iterable[str]) -> None:
    """Raises InvalidConfig."""
    for name in ("name", "namespace", "uid"):
        if not getattr(config.metadata, name):
            raise InvalidConfig(f"config.metadata.{name}", "must be set")
    if handler not in handlers:
        raise InvalidConfig("runtime_handler", f'there is no runtime handler "{handler}"; leave it empty')
    if len(config.hostname) > HOSTNAME_MAX:
        raise InvalidConfig("config.hostname", f"longer than {HOSTNAME_MAX} characters")
    options = config.linux.security_context.namespace_options
    _validate_namespaces(options, "config.linux.security_context.namespace_options")
    for name in config.linux.sysctls:
        _validate_sysctl(name, options)


def _validate_namespaces(options: cri.NamespaceOption, field: str) -> None:
    if options.HasField("userns_options") and options.userns_options.mode != cri.NODE:
        raise InvalidConfig(f"{field}.userns_options", "user namespaces are not supported yet: use mode NODE")
    if options.pid == cri.TARGET and not options.target_id:
        raise InvalidConfig(f"{field}.target_id", "must name a container for pid mode TARGET")


def _validate_sysctl(name: str, options: cri.NamespaceOption) -> None:
    field = f'config.linux.sysctls["{name}"]'
    plain = name.replace("/", ".")
    if not _SYSCTL_NAME.match(name) or ".." in plain:
        raise InvalidConfig(field, "is no sysctl name")
    in_ipc = plain.startswith(_NAMESPACED_SYSCTLS) or plain == "kernel.sem"
    if not in_ipc and not plain.startswith("net."):
        raise InvalidConfig(
            field, "would change the node, not the pod: only kernel.{shm*,msg*,sem}, fs.mqueue.*, net.*"
        )
    if (options.ipc if in_ipc else options.network) == cri.NODE:
        raise InvalidConfig(field, "would change the node: the pod shares that namespace with it")


def validate_container(config: cri.ContainerConfig) -> None:
    """Raises InvalidConfig."""
    if not config.metadata.name:
        raise InvalidConfig("config.metadata.name", "must be set")
    if not config.image.image:
        raise InvalidConfig("config.image.image", "must name an image")
    security = config.linux.security_context
    if security.HasField("run_as_group") and not (security.HasField("run_as_user") or security.run_as_username):
        raise InvalidConfig("config.linux.security_context.run_as_group", "needs run_as_user or run_as_username")
    _validate_namespaces(security.namespace_options, "config.linux.security_context.namespace_options")
    for index, mount in enumerate(config.mounts):
        _validate_mount(mount, f"config.mounts[{index}]")
    if ".." in config.log_path.split("/"):
        raise InvalidConfig("config.log_path", 'must not contain ".."')


def _validate_mount(mount: cri.Mount, field: str) -> None:
    if not mount.container_path:
        raise InvalidConfig(f"{field}.container_path", "must be set")
    if mount.image.image:
        raise InvalidConfig(f"{field}.image", "image volumes are not supported yet")
    if mount.uidMappings or mount.gidMappings:
        raise InvalidConfig(f"{field}.uidMappings", "id-mapped mounts are not supported yet")
    if mount.recursive_read_only:
        if not mount.readonly:
            raise InvalidConfig(f"{field}.recursive_read_only", "needs readonly = true")
        if mount.propagation != cri.PROPAGATION_PRIVATE:
            raise InvalidConfig(f"{field}.recursive_read_only", "needs PROPAGATION_PRIVATE")
    if not os.path.lexists(mount.host_path):
        raise InvalidConfig(f"{field}.host_path", f'"{mount.host_path}" does not exist on this node; create it')
