"""A pod's quality of service class: Guaranteed, Burstable or BestEffort. Source: kubernetes.io, Pod QoS classes."""

from fractions import Fraction

from control.api.quantity import resource_value
from protos.k8s.core_v1_pb2 import Container, Pod

RESOURCES = ("cpu", "memory")


def qos_class(pod: Pod) -> str:
    """The class that requests and limits of all containers give the pod."""
    containers = [*pod.spec.initContainers, *pod.spec.containers]
    if not any(_amounts(container) for container in containers):
        return "BestEffort"
    return "Guaranteed" if all(_is_guaranteed(container) for container in containers) else "Burstable"


def _amounts(container: Container) -> list[Fraction]:
    resources = container.resources
    values = [resource_value(amounts, name) for amounts in (resources.requests, resources.limits) for name in RESOURCES]
    return [value for value in values if value]


def _is_guaranteed(container: Container) -> bool:
    resources = container.resources
    return all(
        resource_value(resources.limits, name) > 0
        and (
            name not in resources.requests
            or resource_value(resources.requests, name) == resource_value(resources.limits, name)
        )
        for name in RESOURCES
    )
