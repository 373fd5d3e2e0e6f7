"""The gRPC window: ``knarr.proxy.v1.Proxy``."""

import grpc

from protos.knarr import proxy_pb2, proxy_pb2_grpc
from proxy.dataplane import BackendStatus, DataPlane, ListenerStatus, host_port

SERVICE = "knarr.proxy.v1.Proxy"


class Proxy(proxy_pb2_grpc.ProxyServicer):
    """Answers from the data plane's own counters."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    async def ListListeners(
        self, request: proxy_pb2.ListListenersRequest, context: grpc.aio.ServicerContext
    ) -> proxy_pb2.ListListenersResponse:
        """See proxy.proto."""
        return proxy_pb2.ListListenersResponse(listeners=[_listener(each) for each in await self._plane.status()])


def _listener(status: ListenerStatus) -> proxy_pb2.Listener:
    listener = status.listener
    return proxy_pb2.Listener(
        namespace=listener.namespace,
        service=listener.service,
        port_name=listener.port_name,
        protocol=listener.protocol,
        address=host_port(listener.address, listener.port),
        role=listener.role,
        backends=[_backend(each) for each in status.backends],
        connections_accepted=status.accepted,
        error=status.error,
    )


def _backend(status: BackendStatus) -> proxy_pb2.Backend:
    return proxy_pb2.Backend(
        address=host_port(status.address, status.port),
        pod=status.pod,
        node=status.node,
        ready=status.ready,
        connections_open=status.open,
        connections_total=status.total,
    )
