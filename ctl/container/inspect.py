"""``inspect``: docker's document for a container."""

import json
from datetime import UTC, datetime
from typing import Any

import click

from ctl.container import template
from ctl.container.group import DaemonError, container_command
from ctl.container.lifecycle import shown_code
from ctl.container.listing import image_config
from ctl.container.node import Container, Node, choose
from ctl.container.spec import LOG_NAME, Mount, Spec, command_line
from ctl.container.state import state_of
from ctl.errors import Failure

ZERO_TIME = "0001-01-01T00:00:00Z"


@container_command("inspect")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@click.option("-f", "--format", "form", default="", metavar="TEMPLATE", help="json, or a Go template.")
@click.option("-s", "--size", "sizes", is_flag=True, help="Show SizeRw, too.")
async def inspect(node: Node, names: tuple[str, ...], form: str, sizes: bool) -> None:
    """Show all about containers, as JSON in docker's form; under Knarr, which pod and which CRI container it is."""
    containers = await node.tidy()
    documents, missing = [], []
    for name in names:
        try:
            documents.append(await document(node, choose(containers, name), sizes))
        except DaemonError:
            missing.append(name)
    if not form:
        click.echo(json.dumps(documents, indent=4, ensure_ascii=False))
    for found in documents if form else ():
        click.echo(json.dumps(found, ensure_ascii=False) if form == "json" else template.render(form, found))
    for name in missing:
        click.echo(f"Error: No such container: {name}", err=True)
    if missing:
        raise Failure(1)


async def document(node: Node, container: Container, sizes: bool = False) -> dict[str, Any]:
    """What docker says about a container."""
    from protos.cri import runtime_pb2 as pb

    spec = container.spec
    status, info = await node.status(container) if container.cri_id else (None, {})
    addresses = await node.addresses(container) if container.is_running else []
    image = await image_config(node, spec.image_id)
    command = command_line(spec, image)
    found = {
        "Id": spec.id,
        "Created": timestamp(spec.created_ns),
        "Path": command[0] if command else "",
        "Args": command[1:],
        "State": state(container, status, info),
        "Image": spec.image_id,
        "LogPath": str(node.folder(spec.id) / LOG_NAME),
        "Name": f"/{spec.name}",
        "RestartCount": 0,
        "Driver": "overlay2",
        "Platform": "linux",
        "HostConfig": host_config(spec),
        "GraphDriver": graph_driver(info),
        "Mounts": [mount_point(mount) for mount in spec.mounts],
        "Config": config(spec, image),
        "NetworkSettings": network(spec, addresses),
        "Knarr": {
            "Sandbox": container.sandbox_id,
            "Container": container.cri_id,
            "Attempt": container.now.number,
            "Cgroup": info.get("cgroup", ""),
        },
    }
    if sizes and container.cri_id:
        stats = (await node.cri.ContainerStats(pb.ContainerStatsRequest(container_id=container.cri_id))).stats
        found["SizeRw"] = stats.writable_layer.used_bytes.value
    return found


def state(container: Container, status: Any, info: dict[str, Any]) -> dict[str, Any]:
    """Pure: docker's State."""
    word = state_of(container, status)
    return {
        "Status": word,
        "Running": word == "running",
        "Paused": False,
        "Restarting": False,
        "OOMKilled": status is not None and status.reason == "OOMKilled",
        "Dead": False,
        "Pid": info.get("pid") or 0,
        "ExitCode": shown_code(status) if status is not None else 0,
        "Error": status.message if status is not None else "",
        "StartedAt": timestamp(status.started_at if status is not None else 0),
        "FinishedAt": timestamp(status.finished_at if status is not None else 0),
    }


def config(spec: Spec, image: dict[str, Any]) -> dict[str, Any]:
    """Pure: docker's Config: what was asked for over what the image says."""
    given = {entry.partition("=")[0] for entry in spec.env}
    inherited = [entry for entry in image.get("Env") or [] if entry.partition("=")[0] not in given]
    return {
        "Hostname": spec.hostname or spec.id[:12],
        "User": spec.user or image.get("User", ""),
        "AttachStdin": spec.stdin and not spec.detached,
        "AttachStdout": not spec.detached,
        "AttachStderr": not spec.detached,
        "ExposedPorts": {text: {} for text in sorted({*spec.exposed, *(port.inside for port in spec.ports)})},
        "Tty": spec.tty,
        "OpenStdin": spec.stdin,
        "StdinOnce": spec.stdin_once,
        "Env": [*spec.env, *inherited],
        "Cmd": spec.command or (None if spec.entrypoint is not None else image.get("Cmd")),
        "Image": spec.image,
        "Volumes": {m.target: {} for m in spec.mounts if m.kind == "volume"} or None,
        "WorkingDir": spec.workdir or image.get("WorkingDir", ""),
        "Entrypoint": image.get("Entrypoint") if spec.entrypoint is None else spec.entrypoint or None,
        "Labels": {**(image.get("Labels") or {}), **spec.labels},
        "StopSignal": spec.stop_signal or image.get("StopSignal", "SIGTERM"),
        "StopTimeout": spec.stop_timeout_s,
    }


def host_config(spec: Spec) -> dict[str, Any]:
    """Pure: docker's HostConfig."""
    binds = [f"{m.name or m.source}:{m.target}{':ro' if m.readonly else ''}" for m in spec.mounts if m.kind != "tmpfs"]
    security = ["no-new-privileges"] if spec.no_new_privileges else []
    security += [f"seccomp={spec.seccomp}"] if spec.seccomp != "default" else []
    return {
        "Binds": binds or None,
        "NetworkMode": spec.network,
        "PortBindings": bindings(spec),
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": spec.auto_remove,
        "CapAdd": spec.cap_add or None,
        "CapDrop": spec.cap_drop or None,
        "Dns": spec.dns,
        "DnsSearch": spec.dns_search,
        "GroupAdd": [str(group) for group in spec.groups] or None,
        "IpcMode": spec.ipc or "private",
        "PidMode": spec.pid,
        "Privileged": spec.privileged,
        "ReadonlyRootfs": spec.read_only,
        "SecurityOpt": security or None,
        "Sysctls": spec.sysctls,
        "Tmpfs": {m.target: m.options for m in spec.mounts if m.kind == "tmpfs"},
        "Devices": [
            {"PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": permissions}
            for host, inside, permissions in spec.devices
        ],
        "Memory": spec.memory_bytes,
        "MemorySwap": spec.memory_swap_bytes,
        "NanoCpus": spec.nano_cpus,
        "CpuShares": spec.cpu_shares,
        "CpusetCpus": spec.cpuset_cpus,
    }


def bindings(spec: Spec) -> dict[str, Any]:
    """Pure: host addresses and ports by container port."""
    found: dict[str, Any] = {}
    for port in spec.ports:
        binding = {"HostIp": port.host_ip or "0.0.0.0", "HostPort": str(port.host_port)}
        found.setdefault(port.inside, []).append(binding)
    return found


def network(spec: Spec, addresses: list[str]) -> dict[str, Any]:
    """Pure: docker's NetworkSettings; addresses are there while it runs."""
    address = addresses[0] if addresses and not spec.is_host_network else ""
    exposed: dict[str, Any] = dict.fromkeys(spec.exposed)
    return {
        "Ports": {**exposed, **bindings(spec)} if addresses else {},
        "IPAddress": address,
        "Networks": {spec.network: {"IPAddress": address}},
    }


def mount_point(mount: Mount) -> dict[str, Any]:
    """Pure: docker's MountPoint."""
    named = {"Name": mount.name, "Driver": "local"} if mount.kind == "volume" else {}
    return {
        "Type": mount.kind,
        **named,
        "Source": mount.source,
        "Destination": mount.target,
        "Mode": "ro" if mount.readonly else "",
        "RW": not mount.readonly,
        "Propagation": "" if mount.kind != "bind" else mount.propagation,
    }


def graph_driver(info: dict[str, Any]) -> dict[str, Any]:
    """Pure: where the layers are."""
    made = info.get("spec", {})
    places = {
        "LowerDir": ":".join(made.get("lower", [])),
        "MergedDir": made.get("rootfs", ""),
        "UpperDir": made.get("upper", ""),
        "WorkDir": made.get("work", ""),
    }
    return {"Name": "overlay2", "Data": places}


def timestamp(moment_ns: int) -> str:
    """RFC 3339 in UTC with nanoseconds; the zero time for 0."""
    if not moment_ns:
        return ZERO_TIME
    seconds, nanoseconds = divmod(moment_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"
