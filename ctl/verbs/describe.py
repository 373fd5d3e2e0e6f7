"""``ctl describe``: an object, what belongs to it, and what happened to it."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import click

from control.api.kinds import Kind, by_name
from control.client import Client, errors
from ctl import tabs
from ctl.command import all_namespaces, cluster_command, selectors
from ctl.context import Context
from ctl.describe.generic import describe_generic
from ctl.describe.node import describe_node
from ctl.describe.parts import Lines
from ctl.describe.pod import describe_pod
from ctl.describe.service import describe_service
from ctl.describe.workload import describe_deployment, describe_replicas, describe_set
from ctl.errors import CtlError, Failure, explain
from ctl.output import neat
from ctl.pods import selector_text
from ctl.resources import Request, parse_requests
from ctl.verbs.events import events_about
from ctl.verbs.get import list_all
from protos.k8s import coordination_v1_pb2 as coordination
from protos.k8s import core_v1_pb2 as core

NODE_LEASES = "kube-node-lease"


@cluster_command()
@click.argument("resources", nargs=-1)
@all_namespaces
@selectors
@click.option("--show-events/--no-show-events", default=True, help="With the object's events (default).")
async def describe(
    context: Context,
    client: Client,
    resources: Sequence[str],
    all_namespaces: bool,
    selector: str,
    field_selector: str,
    show_events: bool,
) -> None:
    """Show details of objects: 'ctl describe pod x', 'ctl describe nodes', 'ctl describe rc/kubia svc/web'."""
    namespace = "" if all_namespaces else context.current_namespace()
    failed = False
    printed = 0
    for request in parse_requests(resources):
        objects, missing = await _objects(client, request, namespace, selector, field_selector)
        for err in missing:
            failed = True
            click.echo(explain(err), err=True)
        for obj in objects:
            text = tabs.layout(await _describe(client, request.kind, obj, show_events))
            click.echo(("\n\n" if printed else "") + text, nl=False)
            printed += 1
    if failed:
        raise Failure(1)
    if not printed:
        click.echo("No resources found" + (f" in {namespace} namespace." if namespace else ""), err=True)


async def _objects(
    client: Client, request: Request, namespace: str, selector: str, field_selector: str
) -> tuple[list[Any], list[errors.NotFound]]:
    """The objects asked for. As kubectl, a name that no object has stands for all that start with it."""
    where = namespace if request.kind.namespaced else ""
    if not request.names:
        return await list_all(client, request.kind, where, selector, field_selector), []
    if selector or field_selector:
        raise CtlError("name cannot be provided when a selector is specified")
    objects, missing = [], []
    for name in request.names:
        try:
            objects.append(await client.get(request.kind.message, name, namespace=where))
        except errors.NotFound as err:
            alike = [o for o in await list_all(client, request.kind, where) if o.metadata.name.startswith(name)]
            objects += alike
            missing += [] if alike else [err]
    return objects, missing


async def _describe(client: Client, kind: Kind, obj: Any, with_events: bool) -> Lines:
    found = await events_about(client, obj, kind.kind) if with_events else []
    gather = _GATHERERS.get(kind.kind, _generic)
    return await gather(client, obj, found, time.time())


async def _pod(client: Client, obj: Any, events: Sequence[Any], now_s: float) -> Lines:
    return describe_pod(obj, events, now_s)


async def _service(client: Client, obj: Any, events: Sequence[Any], now_s: float) -> Lines:
    endpoints = await _maybe(client, core.Endpoints, obj.metadata.name, obj.metadata.namespace)
    return describe_service(obj, endpoints, events, now_s)


async def _node(client: Client, obj: Any, events: Sequence[Any], now_s: float) -> Lines:
    lease = await _maybe(client, coordination.Lease, obj.metadata.name, NODE_LEASES)
    pods = await list_all(client, by_name("pods"), "", field_selector=f"spec.nodeName={obj.metadata.name}")
    living = [pod for pod in pods if pod.status.phase not in ("Succeeded", "Failed")]
    return describe_node(obj, lease, living, events, now_s)


def _workload(render: Callable[..., Lines]) -> "Gatherer":
    async def gather(client: Client, obj: Any, events: Sequence[Any], now_s: float) -> Lines:
        pods = await list_all(client, by_name("pods"), obj.metadata.namespace, selector_text(obj))
        mine = [pod for pod in pods if any(o.uid == obj.metadata.uid for o in pod.metadata.ownerReferences)]
        return render(obj, mine, events, now_s)

    return gather


async def _generic(client: Client, obj: Any, events: Sequence[Any], now_s: float) -> Lines:
    return describe_generic(obj, neat(obj), events, now_s)


async def _maybe(client: Client, message: type[Any], name: str, namespace: str) -> Any | None:
    try:
        return await client.get(message, name, namespace=namespace)
    except errors.NotFound:
        return None


Gatherer = Callable[[Client, Any, Sequence[Any], float], Awaitable[Lines]]
_GATHERERS: dict[str, Gatherer] = {
    "Pod": _pod,
    "Service": _service,
    "Node": _node,
    "ReplicationController": _workload(describe_replicas),
    "ReplicaSet": _workload(describe_replicas),
    "Deployment": _workload(describe_deployment),
    "StatefulSet": _workload(describe_set),
    "DaemonSet": _workload(describe_set),
    "Job": _workload(describe_set),
}
