"""From what a user names (``x``, ``pod/x``, ``rc/kubia``, ``svc/web``) to a pod and a container."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from control.api.selectors import from_labels, from_message
from control.client import Client
from ctl.errors import CtlError
from ctl.resources import named, one_object
from ctl.verbs.get import list_all
from protos.k8s import core_v1_pb2 as core

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


async def pod_named(client: Client, word: str, namespace: str, announce: bool = False) -> core.Pod:
    """The pod itself, or the most useful one of a controller or service; ``announce`` names a choice on stderr.

    Raises NotFound, CtlError when the object selects no pod.
    """
    kind, name = one_object([word], default="pods")
    obj = await client.get(kind.message, name, namespace=namespace)
    if isinstance(obj, core.Pod):
        return obj
    pods = await pods_of(client, obj)
    if not pods:
        raise CtlError(f"{named(kind, name)} has no pods")
    chosen = min(pods, key=_usefulness)
    if announce and len(pods) > 1:
        click.echo(f"Found {len(pods)} pods, using pod/{chosen.metadata.name}", err=True)
    return chosen


async def pods_of(client: Client, obj: Any) -> list[core.Pod]:
    """The pods that ``obj`` selects. Raises CtlError for what selects none."""
    from control.api.kinds import KINDS

    pods = next(kind for kind in KINDS if kind.kind == "Pod")
    return await list_all(client, pods, obj.metadata.namespace, selector_text(obj))


def selector_text(obj: Any) -> str:
    """The label selector of a controller or service, as text. Raises CtlError."""
    selector: Any = getattr(getattr(obj, "spec", None), "selector", None)
    if isinstance(selector, Mapping) and selector:
        return str(from_labels(selector))
    if selector is not None and hasattr(selector, "matchLabels"):
        return str(from_message(selector))
    raise CtlError(f"{obj.metadata.name} does not select pods: name a pod, a controller or a service")


PHASES = {"Running": 0, "Unknown": 1, "Pending": 2}


def _usefulness(pod: core.Pod) -> tuple[bool, int, bool, int, int, int]:
    """Most useful first, in kubectl's order: on a node, running, ready, ready for long, restarted often, old."""
    ready = next((each for each in pod.status.conditions if each.type == "Ready" and each.status == "True"), None)
    restarts = max((each.restartCount for each in pod.status.containerStatuses), default=0)
    return (
        not pod.spec.nodeName,
        PHASES.get(pod.status.phase, 3),
        ready is None,
        ready.lastTransitionTime.seconds if ready else 0,
        -restarts,
        pod.metadata.creationTimestamp.seconds,
    )


def container_of(pod: core.Pod, name: str) -> str:
    """The container called ``name``, or the pod's default one. Raises NotFound-like CtlError naming those there are."""
    names = container_names(pod)
    if name:
        if name not in names:
            raise CtlError(f"container {name} not found in pod {pod.metadata.name}; it has: {', '.join(names)}")
        return name
    default = pod.metadata.annotations.get(DEFAULT_CONTAINER, "")
    return default if default in names else names[0]


def container_names(pod: core.Pod) -> Sequence[str]:
    """Every container, the ordinary ones first."""
    spec = pod.spec
    main = [each.name for each in (*spec.containers, *spec.initContainers)]
    return main + [each.ephemeralContainerCommon.name for each in spec.ephemeralContainers]
