"""What both endpoint controllers ask of a pod: does it serve, and on which port numbers. Pure."""

from protos.k8s import core_v1_pb2 as core
from protos.k8s import intstr_pb2

Ports = tuple[tuple[str, str, int, str], ...]
"""(name, protocol, port number, application protocol), sorted."""


def serves(pod: core.Pod) -> bool:
    """True for a pod that has an address and may still answer on it."""
    return bool(pod.status.podIP) and pod.status.phase not in ("Succeeded", "Failed")


def ports_of(service: core.Service, pod: core.Pod) -> Ports:
    """The service's ports as numbers in this pod; a named target port that the pod does not have is left out."""
    found = []
    for port in service.spec.ports:
        number = target_port(port, pod)
        if number is not None:
            found.append((port.name, port.protocol or "TCP", number, port.appProtocol))
    return tuple(sorted(found))


def target_port(port: core.ServicePort, pod: core.Pod) -> int | None:
    """The number of a port's target in ``pod``: its targetPort, by number or by container port name; else its port."""
    target: intstr_pb2.IntOrString = port.targetPort
    if target.type == 1:
        return _named_port(target.strVal, port.protocol or "TCP", pod)
    return target.intVal or port.port


def _named_port(name: str, protocol: str, pod: core.Pod) -> int | None:
    sidecars = [spec for spec in pod.spec.initContainers if spec.restartPolicy == "Always"]
    for spec in (*pod.spec.containers, *sidecars):
        for port in spec.ports:
            if port.name == name and (port.protocol or "TCP") == protocol:
                return port.containerPort
    return None
