"""Pods: pods, inspectp, runp, stopp, rmp."""

from pathlib import Path
from typing import Any

import click

from ctl.cri import options, show
from ctl.cri.client import Cri, cri_command, for_each
from ctl.cri.config import load_pod_config
from ctl.cri.group import cri
from ctl.cri.selection import find_pods
from ctl.errors import CtlError

COLUMNS = ("POD ID", "CREATED", "STATE", "NAME", "NAMESPACE", "ATTEMPT", "RUNTIME")
STATES = {0: "Ready", 1: "NotReady"}

filters = options.flags(
    options.by_name,
    options.by_namespace,
    options.state("ready", "notready"),
    options.by_label,
    options.latest,
    options.last,
)


@cri_command(cri, "pods")
@options.by_id
@filters
@options.verbose
@options.quiet_ids
@options.no_trunc
@options.output()
async def pods(cri: Cri, form: str, verbose: bool, quiet: bool, no_trunc: bool, **filters: Any) -> None:
    """List pods."""
    found = await find_pods(cri, **filters)
    if form != "table":
        show.print_data({"items": [show.to_dict(pod) for pod in found]}, form)
    elif quiet:
        click.echo("".join(f"{pod.id}\n" for pod in found), nl=False)
    elif verbose:
        for pod in found:
            show.print_fields(_fields(pod))
            click.echo()
    else:
        click.echo(show.table([COLUMNS, *(_row(pod, no_trunc) for pod in found)]), nl=False)


def _row(pod: Any, full: bool) -> tuple[str, ...]:
    return (
        pod.id if full else show.short_id(pod.id),
        show.ago(pod.created_at),
        STATES[pod.state],
        pod.metadata.name,
        pod.metadata.namespace,
        str(pod.metadata.attempt),
        pod.runtime_handler or "(default)",
    )


def _fields(pod: Any) -> list[tuple[str, object]]:
    return [
        ("ID", pod.id),
        ("Name", pod.metadata.name),
        ("UID", pod.metadata.uid),
        ("Namespace", pod.metadata.namespace),
        ("Attempt", pod.metadata.attempt),
        ("Status", STATES[pod.state]),
        ("Created", show.timestamp(pod.created_at)),
        ("Labels", pod.labels),
        ("Annotations", pod.annotations),
        ("Runtime", getattr(pod, "runtime_handler", "") or "(default)"),
    ]


@cri_command(cri, "inspectp")
@click.argument("ids", nargs=-1, metavar="POD-ID...")
@filters
@options.quiet_info
@options.output(default="json")
async def inspectp(cri: Cri, ids: tuple[str, ...], form: str, quiet: bool, **filters: Any) -> None:
    """Display the status of one or more pods."""
    from protos.cri import runtime_pb2 as pb

    chosen = ids or [pod.id for pod in await find_pods(cri, **filters)]
    if not chosen:
        raise CtlError("no pod: name one, or change the filters")
    statuses = []
    for pod_id in chosen:
        request = pb.PodSandboxStatusRequest(pod_sandbox_id=pod_id, verbose=not quiet)
        answer = await cri.call(cri.runtime.PodSandboxStatus(request), f'getting the pod sandbox status of "{pod_id}"')
        if form == "table":
            _print_status(answer)
        else:
            status = {**show.to_dict(answer.status), "createdAt": show.timestamp(answer.status.created_at)}
            statuses.append({"status": status, **show.info_of(answer.info)})
    if statuses:
        show.print_statuses(statuses, form)


def _print_status(answer: Any) -> None:
    fields = _fields(answer.status)
    addresses: list[tuple[str, object]] = [("IP Addresses", answer.status.network.ip)]
    addresses += [("Additional IP", extra.ip) for extra in answer.status.network.additional_ips]
    show.print_fields([*fields[:7], *addresses, *fields[7:9]])
    if answer.info:
        show.print_fields([("Info", dict(answer.info))])


@cri_command(cri, "runp")
@click.argument("config", type=click.Path(path_type=Path), metavar="POD-CONFIG")
@click.option("-r", "--runtime", default="", metavar="HANDLER", help="Runtime handler to use.")
@options.cancel_timeout
async def runp(cri: Cri, config: Path, runtime: str, cancel_timeout: float) -> None:
    """Run a new pod from a config (JSON or YAML) and print its id."""
    click.echo(await run_pod(cri, load_pod_config(config), runtime, cancel_timeout))


async def run_pod(cri: Cri, config: Any, runtime: str, timeout_s: float = 0.0) -> str:
    """Run a sandbox and return its id. Raises CtlError."""
    from protos.cri import runtime_pb2 as pb

    request = pb.RunPodSandboxRequest(config=config, runtime_handler=runtime)
    rpc = cri.runtime.RunPodSandbox(request, timeout=timeout_s or None)
    return (await cri.call(rpc, "running pod sandbox")).pod_sandbox_id


@cri_command(cri, "stopp")
@click.argument("ids", nargs=-1, required=True, metavar="POD-ID...")
async def stopp(cri: Cri, ids: tuple[str, ...]) -> None:
    """Stop one or more running pods."""
    for pod_id in ids:
        await _stop(cri, pod_id)
        click.echo(f"Stopped sandbox {pod_id}")


@cri_command(cri, "rmp")
@click.argument("ids", nargs=-1, metavar="POD-ID...")
@click.option("-f", "--force", is_flag=True, help="Stop them first if they run.")
@click.option("-a", "--all", "every", is_flag=True, help="Remove all pods.")
async def rmp(cri: Cri, ids: tuple[str, ...], force: bool, every: bool) -> None:
    """Remove one or more pods."""
    chosen = [pod.id for pod in await find_pods(cri)] if every else ids
    if not chosen and not every:
        raise CtlError("no pod: name one, or all with --all")
    await for_each(chosen, lambda pod_id: _remove(cri, pod_id, force))


async def _remove(cri: Cri, pod_id: str, force: bool) -> None:
    from protos.cri import runtime_pb2 as pb

    request = pb.PodSandboxStatusRequest(pod_sandbox_id=pod_id)
    status = (await cri.call(cri.runtime.PodSandboxStatus(request), f'getting sandbox status of pod "{pod_id}"')).status
    if status.state == pb.SANDBOX_READY:
        if not force:
            raise CtlError(f'pod sandbox "{pod_id}" is running, please stop it first')
        await _stop(cri, pod_id)
        click.echo(f"Stopped sandbox {pod_id}")
    rpc = cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod_id))
    await cri.call(rpc, f'removing the pod sandbox "{pod_id}"')
    click.echo(f"Removed sandbox {pod_id}")


async def _stop(cri: Cri, pod_id: str) -> None:
    from protos.cri import runtime_pb2 as pb

    rpc = cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod_id))
    await cri.call(rpc, f'stopping the pod sandbox "{pod_id}"')
