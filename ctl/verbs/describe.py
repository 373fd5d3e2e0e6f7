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
from ctl.describe.config import describe_config_map, describe_secret
from ctl.describe.generic import describe_generic
from ctl.describe.namespace import describe_namespace
from ctl.describe.node import describe_node
from ctl.describe.parts import Lines
from ctl.describe.pod import describe_pod
from ctl.describe.service import describe_endpoints, describe_service
from ctl.describe.workload import describe_deployment, describe_replicas, describe_set
from ctl.errors import CtlError, Failure, explain
from ctl.output import neat
from ctl.pods import selector_text
from ctl.resources import Request, parse_requests
from ctl.verbs.events import events_about
from ctl.verbs.get import list_all
from protos.k8s import coordination_v1_pb2 as coordination

NODE_LEASES = "kube-node-lease"

Events = Sequence[Any] | None
"""The events of an object; None when they are not wanted."""


@cluster_command()
@click.argument("resources", nargs=-1)
@all_namespaces
@selectors
@click.option("--show-events/--no-show-events", default=None, help="With events (default: of a single object).")
async def describe(
    context: Context,
    client: Client,
    resources: Sequence[str],
    all_namespaces: bool,
    selector: str,
    field_selector: str,
    show_events: bool | None,
) -> None:
    """Show details of objects: 'ctl describe pod x', 'ctl describe nodes', 'ctl describe rc/kubia svc/web'."""
    namespace = "" if all_namespaces else context.current_namespace()
    found: list[tuple[Kind, Any]] = []
    failed = False
    for request in parse_requests(resources):
        objects, missing = await _objects(client, request, namespace, selector, field_selector)
        found += [(request.kind, obj) for obj in objects]
        for err in missing:
            failed = True
            click.echo(explain(err), err=True)
    with_events = len(found) == 1 if show_events is None else show_events
    for number, (kind, obj) in enumerate(found):
        text = tabs.layout(await _describe(client, kind, obj, with_events))
        click.echo(("\n\n" if number else "") + text, nl=False)
    if failed:
        raise Failure(1)
    if not found:
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
    found = await events_about(client, obj, kind.kind) if with_events else None
    gather = _GATHERERS.get(kind.kind, _generic)
    return await gather(client, obj, found, time.time())


async def _service(client: Client, obj: Any, events: Events, now_s: float) -> Lines:
    of_service = f"kubernetes.io/service-name={obj.metadata.name}"
    slices = await list_all(client, by_name("endpointslices"), obj.metadata.namespace, of_service)
    return describe_service(obj, slices, events, now_s)


def _plainly(render: Callable[..., Lines]) -> "Gatherer":
    """For what is told by the object and its events alone."""

    async def gather(client: Client, obj: Any, events: Events, now_s: float) -> Lines:
        return render(obj, events, now_s)

    return gather


async def _node(client: Client, obj: Any, events: Events, now_s: float) -> Lines:
    lease = await _maybe(client, coordination.Lease, obj.metadata.name, NODE_LEASES)
    pods = await list_all(client, by_name("pods"), "", field_selector=f"spec.nodeName={obj.metadata.name}")
    living = [pod for pod in pods if pod.status.phase not in ("Succeeded", "Failed")]
    return describe_node(obj, lease, living, events, now_s)


async def _namespace(client: Client, obj: Any, events: Events, now_s: float) -> Lines:
    quotas = await list_all(client, by_name("resourcequotas"), obj.metadata.name)
    limits = await list_all(client, by_name("limitranges"), obj.metadata.name)
    return describe_namespace(obj, quotas, limits)


def _workload(render: Callable[..., Lines], owned: str = "pods") -> "Gatherer":
    """For what is told together with the objects that it owns."""

    async def gather(client: Client, obj: Any, events: Events, now_s: float) -> Lines:
        found = await list_all(client, by_name(owned), obj.metadata.namespace, selector_text(obj))
        mine = [each for each in found if any(o.uid == obj.metadata.uid for o in each.metadata.ownerReferences)]
        return render(obj, mine, events, now_s)

    return gather


async def _generic(client: Client, obj: Any, events: Events, now_s: float) -> Lines:
    return describe_generic(obj, neat(obj), events, now_s)


async def _maybe(client: Client, message: type[Any], name: str, namespace: str) -> Any | None:
    try:
        return await client.get(message, name, namespace=namespace)
    except errors.NotFound:
        return None


Gatherer = Callable[[Client, Any, Events, float], Awaitable[Lines]]
_GATHERERS: dict[str, Gatherer] = {
    "Pod": _plainly(describe_pod),
    "ConfigMap": _plainly(describe_config_map),
    "Secret": _plainly(describe_secret),
    "Service": _service,
    "Endpoints": _plainly(describe_endpoints),
    "Node": _node,
    "Namespace": _namespace,
    "ReplicationController": _workload(describe_replicas),
    "ReplicaSet": _workload(describe_replicas),
    "Deployment": _workload(describe_deployment, "replicasets"),
    "StatefulSet": _workload(describe_set),
    "DaemonSet": _workload(describe_set),
    "Job": _workload(describe_set),
}
