"""What only pods have: they are bound to a node, and evicted within their disruption budgets."""

from dataclasses import replace
from typing import Any

from control.api import errors, meta, selectors, times
from control.api.kinds import by_name
from control.apiserver.identity import LOCAL, User
from control.apiserver.reading import select
from control.apiserver.registry import NOW, DeleteOptions, Registry
from protos.k8s import core_v1_pb2 as core

PODS = by_name("pods")


async def bind(registry: Registry, namespace: str, pod: str, node: str, uid: str = "", user: User = LOCAL) -> None:
    """Assign a pod to a node. Raises Conflict when it has one already or is going."""

    def bound(old: core.Pod) -> core.Pod:
        if old.metadata.HasField("deletionTimestamp"):
            raise errors.conflict(PODS, pod, f"pod {pod} is being deleted, cannot be assigned to a host")
        if old.spec.nodeName:
            raise errors.conflict(PODS, pod, f"pod {pod} is already assigned to node {old.spec.nodeName!r}")
        new: core.Pod = meta.copy_of(old)
        new.metadata.resourceVersion = ""
        new.metadata.uid = uid or new.metadata.uid
        new.spec.nodeName = node
        meta.set_condition(new.status.conditions, "PodScheduled", "True")
        return new

    if not node:
        raise errors.invalid(
            PODS, pod, [errors.Cause("FieldValueRequired", "Required value: the node to bind to", "target.name")]
        )
    await registry.change(PODS, namespace, pod, bound, "binding", user, dry_run=False)


async def evict(registry: Registry, namespace: str, pod: str, options: DeleteOptions = NOW, user: User = LOCAL) -> None:
    """Delete a pod unless a disruption budget says not now (TooManyRequests)."""
    obj = await registry.get(PODS, namespace, pod)
    if not meta.pod_is_finished(obj) and not meta.is_deleting(obj):
        await _spend_budget(registry, obj)
    await registry.delete(PODS, namespace, pod, replace(options, uid=options.uid or obj.metadata.uid), user)


async def _spend_budget(registry: Registry, pod: core.Pod) -> None:
    """Take one disruption from the budget that covers ``pod``, if there is one."""
    budgets = by_name("poddisruptionbudgets")
    covering = [
        budget
        for budget in (await registry.list(select(budgets, pod.metadata.namespace, "", ""))).items
        if selectors.from_message(budget.spec.selector).matches(pod.metadata.labels)
    ]
    if len(covering) > 1:
        raise errors.InternalError(f"pod {meta.key(pod)} is covered by more than one disruption budget")
    for budget in covering:
        if budget.status.disruptionsAllowed <= 0:
            raise _would_violate(pod, budget)
        spent = meta.copy_of(budget)
        spent.status.disruptionsAllowed -= 1
        spent.status.disruptedPods[pod.metadata.name].CopyFrom(times.now())
        await _spend(registry, pod, spent)


async def _spend(registry: Registry, pod: core.Pod, spent: Any) -> None:
    """Store the budget with one disruption less; a lost race is told as not now, which clients repeat."""
    try:
        await registry.update(spent, "status")
    except errors.Conflict as err:
        details = replace(errors.about(PODS, pod.metadata.name), retry_after_seconds=1)
        raise errors.TooManyRequests("another eviction came first: try again", details) from err


def _would_violate(pod: core.Pod, budget: Any) -> errors.TooManyRequests:
    cause = errors.Cause(
        "DisruptionBudget",
        f"The disruption budget {budget.metadata.name} needs {budget.status.desiredHealthy} healthy pods and has "
        f"{budget.status.currentHealthy} currently",
    )
    details = replace(errors.about(PODS, pod.metadata.name, [cause]), retry_after_seconds=10)
    return errors.TooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", details)
