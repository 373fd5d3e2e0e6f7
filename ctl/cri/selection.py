"""Which pods and containers a command's filters mean: the runtime knows id, state and label, the rest is done here."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from ctl.cri.client import Cri
from ctl.cri.config import labels_of
from ctl.errors import CtlError

if TYPE_CHECKING:
    from protos.cri.runtime_pb2 import Container, PodSandbox

POD_NAME = "io.kubernetes.pod.name"
POD_NAMESPACE = "io.kubernetes.pod.namespace"

T = TypeVar("T", bound=Any)


async def find_pods(
    cri: Cri,
    *,
    by_id: str = "",
    name: str = "",
    namespace: str = "",
    state: str | None = None,
    labels: tuple[str, ...] = (),
    latest: bool = False,
    last: int = 0,
) -> list["PodSandbox"]:
    """The pods that match all of it, newest first. Raises CtlError."""
    from protos.cri import runtime_pb2 as pb

    wanted = pb.PodSandboxFilter(id=by_id, label_selector=labels_of(labels))
    if state:
        wanted.state.MergeFrom(pb.PodSandboxStateValue(state=f"SANDBOX_{state.upper()}"))
    answer = await cri.call(cri.runtime.ListPodSandbox(pb.ListPodSandboxRequest(filter=wanted)), "listing pods")
    named, spaced = _regex(name), _regex(namespace)
    found = [p for p in answer.items if named.search(p.metadata.name) and spaced.search(p.metadata.namespace)]
    return _newest(found, latest, last)


async def find_containers(
    cri: Cri,
    *,
    by_id: str = "",
    name: str = "",
    namespace: str = "",
    pod: str = "",
    image: str = "",
    state: str | None = None,
    labels: tuple[str, ...] = (),
    latest: bool = False,
    last: int = 0,
    every: bool = False,
) -> list["Container"]:
    """The containers that match all of it, newest first; only running ones unless ``every``, a state, or a count is
    asked for. Raises CtlError."""
    from protos.cri import runtime_pb2 as pb

    wanted = pb.ContainerFilter(id=by_id, pod_sandbox_id=pod, label_selector=labels_of(labels))
    if not (latest or last or (every and not state)):
        wanted.state.MergeFrom(pb.ContainerStateValue(state=f"CONTAINER_{(state or 'running').upper()}"))
    answer = await cri.call(cri.runtime.ListContainers(pb.ListContainersRequest(filter=wanted)), "listing containers")
    named, spaced = _regex(name), _regex(namespace)
    found = [c for c in answer.containers if named.search(c.metadata.name) and spaced.search(namespace_of(c))]
    if image:
        image_id = await id_of_image(cri, image)
        found = [c for c in found if image_id in (c.image_id, await id_of_image(cri, c.image.image))]
    return _newest(found, latest, last)


async def id_of_image(cri: Cri, reference: str) -> str:
    """The id that a reference leads to; empty when there is no such image."""
    from protos.cri import runtime_pb2 as pb

    request = pb.ImageStatusRequest(image=pb.ImageSpec(image=reference))
    return (await cri.call(cri.images.ImageStatus(request), f'image status for "{reference}"')).image.id


def namespace_of(container: "Container") -> str:
    """The pod's namespace, by the label that Kubernetes puts there."""
    return container.labels.get(POD_NAMESPACE, "unknown")


def pod_name_of(container: "Container") -> str:
    """The pod's name, likewise."""
    return container.labels.get(POD_NAME, "unknown")


def _regex(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as err:
        raise CtlError(f'invalid regular expression "{pattern}": {err}') from err


def _newest(items: Iterable[T], latest: bool, last: int) -> list[T]:
    ordered = sorted(items, key=lambda item: -item.created_at)
    return ordered[: 1 if latest else (last or None)]
