"""Keep so many pods of one template: the decisions, pure. Serves ReplicationController and ReplicaSet alike.

``reconcile`` looks at an owner and the pods of its namespace and says which to adopt, release, create and delete, and
what the status is. Which pods go first when there are too many is Kubernetes' order (``deletion_rank``).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from control.api import meta
from control.api.selectors import Selector, from_labels, from_message
from protos.k8s import apps_v1_pb2 as apps
from protos.k8s import core_v1_pb2 as core

Owner = core.ReplicationController | apps.ReplicaSet

BURST = 500
"""Most pods created or deleted in one go."""

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


@dataclass(frozen=True)
class Actions:
    """What to do for one owner. ``status`` is what it should report; ``look_again_s`` when a pod becomes available."""

    adopt: tuple[core.Pod, ...] = ()
    release: tuple[core.Pod, ...] = ()
    create: int = 0
    delete: tuple[core.Pod, ...] = ()
    counts: "Counts | None" = None
    look_again_s: float | None = None


@dataclass(frozen=True)
class Counts:
    """The numbers of a status."""

    replicas: int = 0
    fully_labelled: int = 0
    ready: int = 0
    available: int = 0


def selector_of(owner: Owner) -> Selector:
    """Which pods belong to ``owner``: its selector, or its template's labels when a ReplicationController has none."""
    if isinstance(owner, core.ReplicationController):
        return from_labels(owner.spec.selector or owner.spec.template.metadata.labels)
    return from_message(owner.spec.selector)


def wanted(owner: Owner) -> int:
    """spec.replicas, 1 if unset."""
    return owner.spec.replicas if owner.spec.HasField("replicas") else 1


def reconcile(owner: Owner, pods: Iterable[core.Pod], settled: bool, now: float) -> Actions:
    """The next actions for ``owner``.

    ``pods``: those of its namespace. ``settled``: no creation or deletion of ours is still to be seen; unless it is,
    nothing is created or deleted.
    """
    mine, adopt, release = claim(owner, pods)
    active = [pod for pod in mine if is_active(pod)]
    create = 0
    delete: tuple[core.Pod, ...] = ()
    if settled and not meta.is_deleting(owner):
        surplus = len(active) - wanted(owner)
        create = min(max(-surplus, 0), BURST)
        delete = tuple(_surplus(active, min(surplus, BURST))) if surplus > 0 else ()
    counts, look_again_s = count(owner, active, now)
    return Actions(tuple(adopt), tuple(release), create, delete, counts, look_again_s)


def claim(owner: Owner, pods: Iterable[core.Pod]) -> tuple[list[core.Pod], list[core.Pod], list[core.Pod]]:
    """(ours, ours once adopted, to be released). A pod has at most one controller: others' pods are never touched."""
    selector = selector_of(owner)
    mine: list[core.Pod] = []
    adopt: list[core.Pod] = []
    release: list[core.Pod] = []
    for pod in pods:
        controller, matches = meta.controller_of(pod), selector.matches(pod.metadata.labels)
        if controller is not None and controller.uid == owner.metadata.uid:
            (mine if matches else release).append(pod)
        elif controller is None and matches and is_active(pod) and not meta.is_deleting(owner):
            adopt.append(pod)
            mine.append(pod)
    return mine, adopt, release


def is_active(pod: core.Pod) -> bool:
    """True for a pod that counts: not over and not on its way out."""
    return not meta.pod_is_finished(pod) and not meta.is_deleting(pod)


def count(owner: Owner, active: Sequence[core.Pod], now: float) -> tuple[Counts, float | None]:
    """The status numbers, and in how many seconds the next ready pod becomes available (None: none will)."""
    wanted_labels = owner.spec.template.metadata.labels.items()
    waits = [wait for pod in active if (wait := available_in(pod, owner.spec.minReadySeconds, now)) is not None]
    counts = Counts(
        replicas=len(active),
        fully_labelled=sum(all(pod.metadata.labels.get(k) == v for k, v in wanted_labels) for pod in active),
        ready=sum(meta.pod_is_ready(pod) for pod in active),
        available=sum(wait <= 0 for wait in waits),
    )
    return counts, min((wait for wait in waits if wait > 0), default=None)


def available_in(pod: core.Pod, min_ready_s: int, now: float) -> float | None:
    """Seconds until ``pod`` has been ready for ``min_ready_s`` (0 or less: it has); None if it is not ready."""
    since = ready_since(pod)
    if since is None:
        return None
    return since + min_ready_s - now if min_ready_s else 0.0


def ready_since(pod: core.Pod) -> float | None:
    """When the pod became ready, or None if it is not."""
    condition = meta.find_condition(pod.status.conditions, "Ready")
    if condition is None or condition.status != "True":
        return None
    return float(condition.lastTransitionTime.seconds)


def _surplus(active: Sequence[core.Pod], number: int) -> list[core.Pod]:
    per_node = Counter(pod.spec.nodeName for pod in active)
    return sorted(active, key=lambda pod: deletion_rank(pod, per_node[pod.spec.nodeName]))[:number]


def deletion_rank(pod: core.Pod, on_same_node: int) -> tuple[object, ...]:
    """Sort key: which pod goes first. The one that costs least to lose, in Kubernetes' order:

    without a node; not running; not ready; cheaper by its annotation; crowded on its node; ready for less time;
    restarted more often; younger.
    """
    phases = {"Pending": 0, "": 0, "Unknown": 1, "Running": 2}
    since = ready_since(pod)
    restarts = max((status.restartCount for status in pod.status.containerStatuses), default=0)
    return (
        bool(pod.spec.nodeName),
        phases.get(pod.status.phase, 2),
        since is not None,
        _cost(pod),
        -on_same_node,
        -(since or 0.0),
        -restarts,
        -pod.metadata.creationTimestamp.seconds,
        pod.metadata.name,
    )


def _cost(pod: core.Pod) -> int:
    text = pod.metadata.annotations.get(DELETION_COST, "0")
    return int(text) if text.lstrip("+-").isdigit() else 0


def pod_from(owner: Owner, template: core.PodTemplateSpec) -> core.Pod:
    """A new pod of ``template``, owned by ``owner``; the apiserver completes its name."""
    pod = core.Pod(spec=template.spec)
    pod.metadata.generateName = f"{owner.metadata.name}-"
    pod.metadata.namespace = owner.metadata.namespace
    pod.metadata.labels.update(template.metadata.labels)
    pod.metadata.annotations.update(template.metadata.annotations)
    pod.metadata.finalizers.extend(template.metadata.finalizers)
    pod.metadata.ownerReferences.append(meta.owner_reference(owner))
    return pod


def batches(number: int, first: int = 1) -> Iterable[int]:
    """Split ``number`` into slow-start batches 1, 2, 4...: a quota that refuses the first refuses only one request."""
    size = first
    while number > 0:
        yield min(size, number)
        number -= size
        size *= 2
