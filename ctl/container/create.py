"""``create``, and what it shares with ``run``: docker's flags, the image, the container."""

import json
import random
import secrets
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ctl.container import flags
from ctl.container.group import DaemonError, container_command
from ctl.container.names import NAME, is_name, random_name
from ctl.container.node import Node
from ctl.container.spec import Mount, Port, Spec, command_line
from ctl.errors import fail

PULL_POLICIES = ("always", "missing", "never")

_many: dict[str, Any] = {"multiple": True}
OPTIONS = (
    click.option("--name", default="", help="Assign a name; a made-up one otherwise."),
    click.option("-p", "--publish", **_many, metavar="[[IP:]HOST:]PORT[/PROTO]", help="Publish a port on the host."),
    click.option("-P", "--publish-all", is_flag=True, help="Publish all exposed ports on random ports."),
    click.option("--expose", **_many, metavar="PORT[/PROTO]", help="Expose a port, for -P."),
    click.option("-i", "--interactive", is_flag=True, help="Keep STDIN open even if not attached."),
    click.option("-t", "--tty", is_flag=True, help="Allocate a pseudo-TTY."),
    click.option(
        "--rm", "auto_remove", is_flag=True, help="Remove the container, its nameless volumes too, at its end."
    ),
    click.option("-e", "--env", **_many, metavar="NAME[=VALUE]", help="Set an environment variable."),
    click.option("--env-file", **_many, type=click.Path(path_type=Path), metavar="FILE", help="Variables from a file."),
    click.option("-v", "--volume", **_many, metavar="[SOURCE:]TARGET[:ro]", help="Bind mount a path or a volume."),
    click.option("--mount", **_many, metavar="type=...,src=...,dst=...", help="Attach a bind, volume or tmpfs mount."),
    click.option("--tmpfs", **_many, metavar="TARGET[:OPTIONS]", help="Mount a tmpfs directory."),
    click.option("-u", "--user", default="", metavar="USER[:GID]", help="Name or number of the user to be."),
    click.option("--group-add", **_many, type=int, metavar="GID", help="Additional groups to join."),
    click.option("-w", "--workdir", default="", metavar="DIR", help="Working directory inside the container."),
    click.option("-m", "--memory", default="", metavar="BYTES", help="Memory limit: 512m, 1g."),
    click.option("--memory-swap", default="", metavar="BYTES", help="Memory plus swap; -1 for unlimited swap."),
    click.option("--cpus", default="", metavar="DECIMAL", help="Number of CPUs."),
    click.option("-c", "--cpu-shares", type=int, default=0, help="CPU shares (relative weight)."),
    click.option("--cpuset-cpus", default="", metavar="CPUS", help="CPUs in which to allow execution: 0-3, 0,1."),
    click.option("--entrypoint", metavar="PROGRAM", help='Instead of the image\'s; "" for none.'),
    click.option("--network", "--net", default="bridge", metavar="bridge|host", help="Which network to be in."),
    click.option("--pid", default="", metavar="host", help="Share the host's processes."),
    click.option("--ipc", default="", metavar="host|private", help="Share the host's IPC."),
    click.option("-h", "--hostname", default="", help="Container host name; its id otherwise."),
    click.option("--dns", **_many, metavar="IP", help="DNS servers."),
    click.option("--dns-search", **_many, metavar="DOMAIN", help="DNS search domains."),
    click.option("-l", "--label", **_many, metavar="NAME[=VALUE]", help="Set a label."),
    click.option("--read-only", is_flag=True, help="Mount the root file system as read only."),
    click.option("--cap-add", **_many, metavar="CAP", help="Add a capability, or ALL."),
    click.option("--cap-drop", **_many, metavar="CAP", help="Drop a capability, or ALL."),
    click.option("--privileged", is_flag=True, help="Give extended privileges to this container."),
    click.option("--security-opt", **_many, metavar="OPTION", help="no-new-privileges, seccomp=unconfined|FILE."),
    click.option("--sysctl", **_many, metavar="NAME=VALUE", help="Namespaced kernel parameters."),
    click.option("--device", **_many, metavar="HOST[:INSIDE[:rwm]]", help="Add a host device."),
    click.option(
        "--restart", default="no", metavar="no", help="Only 'no': nobody restarts containers here; see below."
    ),
    click.option("--stop-signal", default="", metavar="SIGNAL", help="Signal to stop the container."),
    click.option("--stop-timeout", type=int, default=10, show_default=True, metavar="SECONDS", help="Grace of stop."),
    click.option("--pull", type=click.Choice(PULL_POLICIES), default="missing", help="Pull the image before creating."),
    click.option(
        "--cidfile", type=click.Path(path_type=Path), metavar="FILE", help="Write the container's id to FILE."
    ),
)


def creation_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """docker's flags that ``run`` and ``create`` have in common; they arrive as ``given``."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


WORDS: dict[str, Any] = {"allow_interspersed_args": False, "ignore_unknown_options": False}


@container_command("create", context_settings={**WORDS, "help_option_names": ["--help"]})
@creation_flags
@click.argument("image")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND] [ARG...]")
async def create(node: Node, image: str, words: tuple[str, ...], **given: Any) -> None:
    """Create a container without starting it, and print its id."""
    made = await create_container(node, image, words, given)
    click.echo(made.spec.id)


async def create_container(node: Node, image: str, words: tuple[str, ...], given: dict[str, Any], **more: Any) -> Any:
    """What ``create`` and ``run`` do first. Raises CtlError, DaemonError."""
    spec = replace(spec_of(image, words, given, node.volumes), **more)
    cidfile: Path | None = given["cidfile"]
    if cidfile and cidfile.exists():
        fail(f"container ID file found, make sure the other container isn't running or delete {cidfile}")
    described = await ensure_image(node, image, given["pull"])
    existing = await node.tidy()
    spec = named(spec, {container.spec.name: container.spec.id for container in existing})
    spec = completed(
        spec, described.image.id, json.loads(described.config).get("config", {}), given["publish_all"], node.volumes
    )
    made = await node.create(spec)
    if cidfile:
        cidfile.write_text(spec.id)
    return made


def spec_of(image: str, words: tuple[str, ...], given: dict[str, Any], volumes: Path) -> Spec:
    """Pure, but for the environment and files that flags name: what the flags ask for. Raises CtlError."""
    _refuse(given)
    memory = flags.parse_memory(given["memory"])
    no_new, seccomp = flags.parse_security(given["security_opt"])
    stop_signal = given["stop_signal"]
    mounts = [flags.parse_volume(text, volumes) for text in given["volume"]]
    mounts += [flags.parse_mount(text, volumes) for text in given["mount"]]
    mounts += [flags.parse_tmpfs(text) for text in given["tmpfs"]]
    targets = [mount.target.rstrip("/") for mount in mounts]
    if duplicate := next((target for target in targets if targets.count(target) > 1), None):
        fail(f"Duplicate mount point: {duplicate}")
    entrypoint = given["entrypoint"]
    return Spec(
        name=given["name"].removeprefix("/"),
        image=image,
        entrypoint=None if entrypoint is None else [entrypoint] if entrypoint else [],
        command=list(words),
        env=flags.parse_env(given["env"], given["env_file"]),
        user=flags.parse_user(given["user"]),
        groups=list(given["group_add"]),
        workdir=given["workdir"],
        hostname=given["hostname"],
        labels=flags.parse_pairs(given["label"], "--label"),
        tty=given["tty"],
        stdin=given["interactive"],
        auto_remove=given["auto_remove"],
        ports=flags.parse_ports(given["publish"]),
        exposed=[text if "/" in text else f"{text}/tcp" for text in given["expose"]],
        mounts=mounts,
        devices=[flags.parse_device(text) for text in given["device"]],
        network="bridge" if given["network"] == "default" else given["network"],
        pid=given["pid"],
        ipc=given["ipc"],
        dns=list(given["dns"]),
        dns_search=list(given["dns_search"]),
        sysctls=flags.parse_pairs(given["sysctl"], "--sysctl"),
        memory_bytes=memory,
        memory_swap_bytes=flags.parse_swap(given["memory_swap"], memory),
        nano_cpus=flags.parse_cpus(given["cpus"]),
        cpu_shares=given["cpu_shares"],
        cpuset_cpus=given["cpuset_cpus"],
        read_only=given["read_only"],
        privileged=given["privileged"],
        cap_add=list(given["cap_add"]),
        cap_drop=list(given["cap_drop"]),
        no_new_privileges=no_new,
        seccomp=seccomp,
        stop_signal=flags.signal_name(flags.parse_signal(stop_signal)) if stop_signal else "",
        stop_timeout_s=given["stop_timeout"],
    )


def _refuse(given: dict[str, Any]) -> None:
    if given["restart"] not in ("no", ""):
        fail(
            f"--restart {given['restart']} is not supported: no daemon of ours watches containers. "
            f"'ctl run' makes a controller that does, with a cluster ('ctl up')"
        )
    if given["network"] not in ("bridge", "default", "host"):
        fail(f"--network {given['network']} is not supported: CRI knows the pod network (bridge) and the host's (host)")
    if given["pid"] not in ("", "host") or given["ipc"] not in ("", "host", "private"):
        fail("--pid and --ipc can only be host here")
    if given["network"] == "host" and given["publish"]:
        click.echo("WARNING: Published ports are discarded when using host network mode", err=True)
        given["publish"] = ()


def named(spec: Spec, taken: dict[str, str]) -> Spec:
    """Pure but for chance: with an id, a name that is free and the time. Raises DaemonError in docker's words."""
    if spec.name and not is_name(spec.name):
        raise DaemonError(f"Invalid container name ({spec.name}), only {NAME.pattern} are allowed")
    if spec.name in taken:
        raise DaemonError(
            f'Conflict. The container name "/{spec.name}" is already in use by container "{taken[spec.name]}". '
            f"You have to remove that container to be able to reuse that name."
        )
    name = spec.name or random_name(taken, random.SystemRandom())
    return replace(spec, id=secrets.token_hex(32), name=name, created_ns=time.time_ns())


def completed(spec: Spec, image_id: str, image: dict[str, Any], publish_all: bool, volumes: Path) -> Spec:
    """With what the image says, with host ports for those that want any, and names for nameless volumes."""
    if not command_line(spec, image):
        raise DaemonError("No command specified")
    exposed = sorted({*spec.exposed, *(image.get("ExposedPorts") or {})})
    ports = list(spec.ports)
    if publish_all and not spec.is_host_network:
        known = {port.inside for port in ports}
        ports += flags.parse_ports(text for text in exposed if text not in known)
    return replace(
        spec,
        image_id=image_id,
        exposed=exposed,
        ports=[_with_host_port(port) for port in ports],
        mounts=[_with_name(mount, volumes) for mount in spec.mounts],
    )


def _with_name(mount: Mount, volumes: Path) -> Mount:
    if mount.kind != "volume" or mount.source:
        return mount
    name = secrets.token_hex(32)
    return replace(mount, name=name, source=str(volumes / name / "_data"))


def _with_host_port(port: Port) -> Port:
    """The port, with a host port that nobody listens on. Raises DaemonError: the one asked for is in use."""
    if port.protocol == "sctp":
        return port
    kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1 if kind == socket.SOCK_STREAM else 0)
            probe.bind((port.host_ip, port.host_port))
        except OSError as err:
            address = f"{port.host_ip or '0.0.0.0'}:{port.host_port}/{port.protocol}"
            raise DaemonError(f"failed to bind host port {address}: {err.strerror}") from err
        return replace(port, host_port=probe.getsockname()[1])


async def ensure_image(node: Node, name: str, policy: str) -> Any:
    """The image's InspectResponse, after a pull when the policy says so. Raises DaemonError."""
    import grpc

    from protos.knarr import images_pb2 as pb

    if policy != "always":
        try:
            return await node.images.Inspect(pb.InspectRequest(image=name))
        except grpc.aio.AioRpcError as err:
            if err.code() != grpc.StatusCode.NOT_FOUND:
                raise
        if policy == "never":
            raise DaemonError(f"No such image: {name}")
        click.echo(f"Unable to find image '{name if ':' in name else f'{name}:latest'}' locally", err=True)
    from ctl.image.progress import Transfer

    shown = Transfer(sys.stderr)
    async for progress in node.images.Pull(pb.PullRequest(image=name)):
        shown.show(progress)
    return await node.images.Inspect(pb.InspectRequest(image=name))
