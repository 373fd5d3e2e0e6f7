"""Printers of ``apps/v1``."""

from typing import Any

from control.api.printers.model import Printer
from control.api.printers.parts import NONE, age, containers, images, labels, selector

WORKLOAD = "+CONTAINERS|+IMAGES|+SELECTOR"


def _workload(obj: Any) -> list[str]:
    spec = obj.spec.template.spec
    return [containers(spec), images(spec), selector(obj.spec.selector)]


def _deployment(deployment: Any, now_s: float) -> list[str]:
    return [
        deployment.metadata.name,
        f"{deployment.status.readyReplicas}/{deployment.spec.replicas}",
        str(deployment.status.updatedReplicas),
        str(deployment.status.availableReplicas),
        age(deployment.metadata.creationTimestamp, now_s),
        *_workload(deployment),
    ]


def _replica_set(replicas: Any, now_s: float) -> list[str]:
    return [
        replicas.metadata.name,
        str(replicas.spec.replicas),
        str(replicas.status.replicas),
        str(replicas.status.readyReplicas),
        age(replicas.metadata.creationTimestamp, now_s),
        *_workload(replicas),
    ]


def _daemon_set(daemons: Any, now_s: float) -> list[str]:
    status = daemons.status
    return [
        daemons.metadata.name,
        str(status.desiredNumberScheduled),
        str(status.currentNumberScheduled),
        str(status.numberReady),
        str(status.updatedNumberScheduled),
        str(status.numberAvailable),
        labels(daemons.spec.template.spec.nodeSelector),
        age(daemons.metadata.creationTimestamp, now_s),
        *_workload(daemons),
    ]


def _stateful_set(stateful: Any, now_s: float) -> list[str]:
    spec = stateful.spec.template.spec
    return [
        stateful.metadata.name,
        f"{stateful.status.readyReplicas}/{stateful.spec.replicas}",
        age(stateful.metadata.creationTimestamp, now_s),
        containers(spec),
        images(spec),
    ]


def _revision(revision: Any, now_s: float) -> list[str]:
    owner = next((each for each in revision.metadata.ownerReferences if each.controller), None)
    return [
        revision.metadata.name,
        f"{owner.kind.lower()}.{owner.apiVersion.partition('/')[0]}/{owner.name}" if owner else NONE,
        str(revision.revision),
        age(revision.metadata.creationTimestamp, now_s),
    ]


PRINTERS = {
    "deployments.apps": Printer(f"NAME|READY|UP-TO-DATE|AVAILABLE|AGE|{WORKLOAD}", _deployment),
    "replicasets.apps": Printer(f"NAME|DESIRED|CURRENT|READY|AGE|{WORKLOAD}", _replica_set),
    "daemonsets.apps": Printer(
        f"NAME|DESIRED|CURRENT|READY|UP-TO-DATE|AVAILABLE|NODE SELECTOR|AGE|{WORKLOAD}", _daemon_set
    ),
    "statefulsets.apps": Printer("NAME|READY|AGE|+CONTAINERS|+IMAGES", _stateful_set),
    "controllerrevisions.apps": Printer("NAME|CONTROLLER|REVISION|AGE", _revision),
}
