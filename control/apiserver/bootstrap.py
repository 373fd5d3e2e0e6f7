"""What a cluster has before anybody creates anything: four namespaces and the ``kubernetes`` service."""

from control.api import errors
from control.apiserver.admission import PERMANENT
from control.apiserver.registry import Registry
from protos.k8s.core_v1_pb2 import Namespace, Service

SECURE_PORT = 443


async def bootstrap(registry: Registry, port: int) -> None:
    """Create what is missing. ``port`` is the one this server listens on. Idempotent; raises ApiErrors."""
    for name in PERMANENT:
        namespace = Namespace()
        namespace.metadata.name = name
        await _ensure(registry, namespace)
    await registry.feed.reach(await registry.revision(), timeout_s=5.0)
    await _ensure(registry, _kubernetes(registry.allocator.first, port))


async def _ensure(registry: Registry, obj: Namespace | Service) -> None:
    try:
        await registry.create(obj)
    except errors.AlreadyExists:
        return


def _kubernetes(ip: str, port: int) -> Service:
    """The service by which pods find the API. It has no selector: its endpoints are the servers themselves."""
    service = Service()
    service.metadata.name, service.metadata.namespace = "kubernetes", "default"
    service.metadata.labels.update({"component": "apiserver", "provider": "kubernetes"})
    service.spec.clusterIP = ip
    entry = service.spec.ports.add(name="https", port=SECURE_PORT, protocol="TCP")
    entry.targetPort.intVal = port
    return service
