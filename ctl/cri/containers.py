"""Containers: ps, inspect, create, start, run, stop, rm."""

from pathlib import Path
from typing import Any

import click

from ctl.cri import options, show
from ctl.cri.client import Cri, cri_command, for_each
from ctl.cri.config import load_container_config, load_pod_config
from ctl.cri.group import cri
from ctl.cri.images import credentials, pull_image
from ctl.cri.pods import run_pod
from ctl.cri.selection import find_containers, namespace_of, pod_name_of
from ctl.errors import CtlError

COLUMNS = ("CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT", "POD ID", "POD", "NAMESPACE")
STATES = ("Created", "Running", "Exited", "Unknown")

filters = options.flags(
    options.by_name,
    options.by_namespace,
    options.by_pod,
    options.by_image,
    options.state("created", "running", "exited", "unknown"),
    options.by_label,
    options.latest,
    options.last,
    click.option("-a", "--all", "every", is_flag=True, help="Exited and created containers too."),
)


@cri_command(cri, "ps")
@options.by_id
@filters
@options.verbose
@options.quiet_ids
@options.no_trunc
@click.option("-r", "--resolve-image-path", "resolve", is_flag=True, help="Show image path instead of image id.")
@options.output()
async def ps(cri: Cri, form: str, verbose: bool, quiet: bool, no_trunc: bool, resolve: bool, **filters: Any) -> None:
    """List containers."""
    found = await find_containers(cri, **filters)
    if form != "table":
        show.print_data({"containers": [show.to_dict(container) for container in found]}, form)
    elif quiet:
        click.echo("".join(f"{container.id}\n" for container in found), nl=False)
    elif verbose:
        for container in found:
            show.print_fields(_fields(container))
            click.echo()
    else:
        images = {c.image.image: await _repo_tag(cri, c.image.image) for c in found} if resolve else {}
        rows = [_row(container, no_trunc, images) for container in found]
        click.echo(show.table([COLUMNS, *rows]), nl=False)


async def _repo_tag(cri: Cri, image: str) -> str:
    from protos.cri import runtime_pb2 as pb

    request = pb.ImageStatusRequest(image=pb.ImageSpec(image=image))
    tags = (await cri.call(cri.images.ImageStatus(request), f'image status for "{image}"')).image.repo_tags
    return tags[0] if tags else image


def _row(container: Any, full: bool, images: dict[str, str]) -> tuple[str, ...]:
    def cut(text: str) -> str:
        return text if full else show.short_id(text)

    image = images.get(container.image.image, container.image.image)
    return (
        cut(container.id),
        cut(image) if image.startswith("sha256:") else image,
        show.ago(container.created_at),
        STATES[container.state],
        container.metadata.name,
        str(container.metadata.attempt),
        cut(container.pod_sandbox_id),
        pod_name_of(container),
        namespace_of(container),
    )


def _fields(container: Any) -> list[tuple[str, object]]:
    return [
        ("ID", container.id),
        ("PodID", container.pod_sandbox_id),
        ("Namespace", namespace_of(container)),
        ("Name", container.metadata.name),
        ("Attempt", container.metadata.attempt),
        ("State", STATES[container.state]),
        ("Image", container.image.image),
        ("Created", show.ago(container.created_at)),
        ("Labels", container.labels),
        ("Annotations", container.annotations),
    ]


@cri_command(cri, "inspect")
@click.argument("ids", nargs=-1, metavar="CONTAINER-ID...")
@filters
@options.quiet_info
@options.output(default="json")
async def inspect(cri: Cri, ids: tuple[str, ...], form: str, quiet: bool, **filters: Any) -> None:
    """Display the status of one or more containers."""
    chosen = ids or [container.id for container in await find_containers(cri, **filters)]
    if not chosen:
        raise CtlError("no container: name one, or change the filters")
    statuses = []
    for container_id in chosen:
        answer = await status_of(cri, container_id, verbose=not quiet)
        if form == "table":
            _print_status(answer)
        else:
            statuses.append({"status": _status_dict(answer.status), **show.info_of(answer.info)})
    if statuses:
        show.print_statuses(statuses, form)


async def status_of(cri: Cri, container_id: str, verbose: bool = False) -> Any:
    """The ContainerStatus answer. Raises CtlError."""
    from protos.cri import runtime_pb2 as pb

    request = pb.ContainerStatusRequest(container_id=container_id, verbose=verbose)
    return await cri.call(cri.runtime.ContainerStatus(request), f'getting the status of container "{container_id}"')


def _status_dict(status: Any) -> dict[str, Any]:
    times = {
        "createdAt": show.timestamp(status.created_at),
        "startedAt": show.timestamp(status.started_at),
        "finishedAt": show.timestamp(status.finished_at),
    }
    return {**show.to_dict(status), **times}


def _print_status(answer: Any) -> None:
    status = answer.status
    fields: list[tuple[str, object]] = [
        ("ID", status.id),
        ("Name", status.metadata.name),
        ("State", STATES[status.state]),
        ("Created", show.ago(status.created_at)),
    ]
    if status.started_at:
        fields.append(("Started", show.ago(status.started_at)))
    if status.finished_at:
        fields += [("Finished", show.ago(status.finished_at)), ("Exit Code", status.exit_code)]
    fields += [("Labels", status.labels), ("Annotations", status.annotations)]
    show.print_fields([*fields, *([("Info", dict(answer.info))] if answer.info else [])])


pull_flags = options.flags(
    click.option("--no-pull", is_flag=True, help="Do not pull the image (the default)."),
    click.option("--with-pull", is_flag=True, help="Pull the image first."),
    options.registry_credentials,
    options.cancel_timeout,
)


@cri_command(cri, "create")
@click.argument("pod_id", metavar="POD")
@click.argument("config", type=click.Path(path_type=Path), metavar="CONTAINER-CONFIG")
@click.argument("pod_config", type=click.Path(path_type=Path), metavar="POD-CONFIG")
@pull_flags
async def create(cri: Cri, pod_id: str, config: Path, pod_config: Path, **pulling: Any) -> None:
    """Create a new container in a pod and print its id."""
    click.echo(await _create(cri, pod_id, config, load_pod_config(pod_config), **pulling))


async def _create(
    cri: Cri,
    pod_id: str,
    config: Path,
    pod_config: Any,
    no_pull: bool,
    with_pull: bool,
    cancel_timeout: float,
    **auth: str,
) -> str:
    from protos.cri import runtime_pb2 as pb

    container = load_container_config(config)
    if with_pull and not no_pull:
        await pull_image(cri, container.image.image, credentials(**auth), pod_config, timeout_s=cancel_timeout)
    request = pb.CreateContainerRequest(pod_sandbox_id=pod_id, config=container, sandbox_config=pod_config)
    rpc = cri.runtime.CreateContainer(request, timeout=cancel_timeout or None)
    return (await cri.call(rpc, "creating container")).container_id


@cri_command(cri, "start")
@click.argument("ids", nargs=-1, required=True, metavar="CONTAINER-ID...")
async def start(cri: Cri, ids: tuple[str, ...]) -> None:
    """Start one or more created containers."""
    for container_id in ids:
        await _start(cri, container_id)
        click.echo(container_id)


async def _start(cri: Cri, container_id: str) -> None:
    from protos.cri import runtime_pb2 as pb

    rpc = cri.runtime.StartContainer(pb.StartContainerRequest(container_id=container_id))
    await cri.call(rpc, f'starting the container "{container_id}"')


@cri_command(cri, "run")
@click.argument("config", type=click.Path(path_type=Path), metavar="CONTAINER-CONFIG")
@click.argument("pod_config", type=click.Path(path_type=Path), metavar="POD-CONFIG")
@options.runtime_handler
@pull_flags
async def run(cri: Cri, config: Path, pod_config: Path, runtime: str, **pulling: Any) -> None:
    """Run a new container inside a new pod and print the container's id."""
    sandbox = load_pod_config(pod_config)
    load_container_config(config)  # before anything runs
    pod_id = await run_pod(cri, sandbox, runtime, pulling["cancel_timeout"])
    container_id = await _create(cri, pod_id, config, sandbox, **pulling)
    await _start(cri, container_id)
    click.echo(container_id)


@cri_command(cri, "stop")
@click.argument("ids", nargs=-1, metavar="CONTAINER-ID...")
@click.option("-t", "--timeout", type=int, default=0, metavar="SECONDS", help="Wait so long before killing.")
@click.option("-a", "--all", "every", is_flag=True, help="Stop all running containers.")
async def stop(cri: Cri, ids: tuple[str, ...], timeout: int, every: bool) -> None:
    """Stop one or more running containers."""
    chosen = [container.id for container in await find_containers(cri)] if every else ids
    if not chosen and not every:
        raise CtlError("no container: name one, or all with --all")
    await for_each(chosen, lambda container_id: _stop(cri, container_id, timeout))


async def _stop(cri: Cri, container_id: str, timeout_s: int) -> None:
    from protos.cri import runtime_pb2 as pb

    request = pb.StopContainerRequest(container_id=container_id, timeout=timeout_s)
    await cri.call(cri.runtime.StopContainer(request), f'stopping the container "{container_id}"')
    click.echo(container_id)


@cri_command(cri, "rm")
@click.argument("ids", nargs=-1, metavar="CONTAINER-ID...")
@click.option("-f", "--force", is_flag=True, help="Stop them first if they run.")
@click.option("-k", "--keep-logs", is_flag=True, help="Keep the log file and its rotations.")
@click.option("-a", "--all", "every", is_flag=True, help="Remove all containers.")
async def rm(cri: Cri, ids: tuple[str, ...], force: bool, keep_logs: bool, every: bool) -> None:
    """Remove one or more containers."""
    chosen = [container.id for container in await find_containers(cri, every=True)] if every else ids
    if not chosen and not every:
        raise CtlError("no container: name one, or all with --all")
    await for_each(chosen, lambda container_id: _remove(cri, container_id, force, keep_logs))


async def _remove(cri: Cri, container_id: str, force: bool, keep_logs: bool) -> None:
    from protos.cri import runtime_pb2 as pb

    status = (await status_of(cri, container_id)).status
    if status.state == pb.CONTAINER_RUNNING:
        if not force:
            raise CtlError(f'container "{container_id}" is running, please stop it first')
        stopping = cri.runtime.StopContainer(pb.StopContainerRequest(container_id=container_id))
        await cri.call(stopping, f'stopping the container "{container_id}"')
    rpc = cri.runtime.RemoveContainer(pb.RemoveContainerRequest(container_id=container_id))
    await cri.call(rpc, f'removing container "{container_id}"')
    if status.log_path and not keep_logs:
        _remove_logs(Path(status.log_path))
    click.echo(container_id)


def _remove_logs(log: Path) -> None:
    """The runtime keeps logs; like crictl, who removes a container by hand removes its log and the rotations of it."""
    for path in [log, *log.parent.glob(f"{log.name}.*")]:
        path.unlink(missing_ok=True)


@cri_command(cri, "update")
@click.argument("ids", nargs=-1, required=True, metavar="CONTAINER-ID...")
@click.option("--cpu-period", type=int, default=0, metavar="USEC", help="CPU CFS period; 0 is the system's.")
@click.option("--cpu-quota", type=int, default=0, metavar="USEC", help="CPU time allowed in a period.")
@click.option("--cpu-share", type=int, default=0, help="CPU shares, relative to other containers.")
@click.option("--memory", type=int, default=0, metavar="BYTES", help="Memory limit.")
@click.option("--cpuset-cpus", default="", metavar="CPUS", help="CPUs to use.")
@click.option("--cpuset-mems", default="", metavar="NODES", help="Memory nodes to use.")
async def update(cri: Cri, ids: tuple[str, ...], cpu_share: int, memory: int, **limits: Any) -> None:
    """Change the resource limits of one or more running containers."""
    from protos.cri import runtime_pb2 as pb

    resources = pb.LinuxContainerResources(cpu_shares=cpu_share, memory_limit_in_bytes=memory, **limits)
    for container_id in ids:
        request = pb.UpdateContainerResourcesRequest(container_id=container_id, linux=resources)
        rpc = cri.runtime.UpdateContainerResources(request)
        await cri.call(rpc, f'updating container resources for "{container_id}"')
        click.echo(container_id)
