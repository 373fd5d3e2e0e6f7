"""Log, Exec, Attach and PortForward: found by the pod's node, relayed to its kubelet, unread, over mutual TLS."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import grpc

from control.api import errors
from control.api.kinds import by_name
from control.apiserver.registry import Registry
from protos.k8s.core_v1_pb2 import Node, Pod
from protos.knarr import stream_pb2 as stream
from protos.knarr.node_pb2_grpc import NodeStub
from protos.serving import TLS, open_channel

PODS, NODES = by_name("pods"), by_name("nodes")
ADDRESS_TYPES = ("InternalIP", "Hostname", "ExternalIP")


class NodeRelay:
    """Connections to kubelets, one per address, kept open. ``aclose`` ends them."""

    def __init__(self, registry: Registry, tls: TLS | None) -> None:
        self._registry, self._tls = registry, tls
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def aclose(self) -> None:
        """Close every connection; streams through them end."""
        for channel in self._channels.values():
            await channel.close()

    async def log(self, request: stream.LogRequest) -> AsyncIterator[stream.LogChunk]:
        """The chunks of a container's log."""
        target = request.target
        pod, stub = await self._reach(target.namespace, target.pod)
        target.container = _container(pod, target.container)
        async for chunk in _told(pod, stub.Log(request)):
            yield chunk

    async def exec(
        self, first: stream.ExecRequest, rest: AsyncIterator[stream.ExecRequest]
    ) -> AsyncGenerator[stream.StreamResponse, None]:
        """Both directions of a command."""
        async for message in self._interactive(lambda stub: stub.Exec, first, rest):
            yield message

    async def attach(
        self, first: stream.AttachRequest, rest: AsyncIterator[stream.AttachRequest]
    ) -> AsyncGenerator[stream.StreamResponse, None]:
        """Both directions of a container's first process."""
        async for message in self._interactive(lambda stub: stub.Attach, first, rest):
            yield message

    async def port_forward(
        self, first: stream.PortForwardRequest, rest: AsyncIterator[stream.PortForwardRequest]
    ) -> AsyncIterator[stream.PortForwardResponse]:
        """Both directions of one TCP connection."""
        pod, stub = await self._reach(first.start.namespace, first.start.pod)
        async for message in _both(pod, stub.PortForward(), first, rest):
            yield message

    async def check(self, namespace: str, name: str, container: str) -> None:
        """Raise what a stream to this container would fail with at once: no such pod, container or node."""
        pod, _ = await self._reach(namespace, name)
        _container(pod, container)

    async def _interactive(
        self, method: Callable[[NodeStub], Any], first: Any, rest: AsyncIterator[Any]
    ) -> AsyncIterator[Any]:
        target = first.start.target
        pod, stub = await self._reach(target.namespace, target.pod)
        target.container = _container(pod, target.container)
        async for message in _both(pod, method(stub)(), first, rest):
            yield message

    async def _reach(self, namespace: str, name: str) -> tuple[Pod, NodeStub]:
        """The pod and a stub of its node. Raises NotFound, BadRequest, Unavailable."""
        pod: Pod = await self._registry.get(PODS, namespace, name)
        if not pod.spec.nodeName:
            raise errors.BadRequest(f"pod {namespace}/{name} is not on a node yet: wait until it is scheduled")
        node: Node = await self._registry.get(NODES, "", pod.spec.nodeName)
        return pod, NodeStub(self._channel(kubelet_address(node)))

    def _channel(self, address: str) -> grpc.aio.Channel:
        if address not in self._channels:
            self._channels[address] = open_channel(address, self._tls)
        return self._channels[address]


def kubelet_address(node: Node) -> str:
    """``host:port`` of a node's kubelet. Raises Unavailable when the node does not tell it."""
    port = node.status.daemonEndpoints.kubeletEndpoint.Port
    for type_ in ADDRESS_TYPES:
        for address in node.status.addresses:
            if address.type == type_ and port:
                host = f"[{address.address}]" if ":" in address.address else address.address
                return f"{host}:{port}"
    raise errors.Unavailable(f"node {node.metadata.name} has not told the address of its kubelet: is it running?")


def _container(pod: Pod, name: str) -> str:
    """The container that is meant: the one named, the default one, or the first. Raises BadRequest."""
    names = [container.name for container in [*pod.spec.containers, *pod.spec.initContainers]]
    wanted = name or pod.metadata.annotations.get("kubectl.kubernetes.io/default-container") or names[0]
    if wanted not in names:
        raise errors.BadRequest(
            f"container {wanted} is not valid for pod {pod.metadata.name}: choose one of {', '.join(names)}"
        )
    return wanted


async def _both(pod: Pod, call: Any, first: Any, rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Send ``first`` and ``rest`` while yielding the answers; the node ends the stream."""
    sending = asyncio.create_task(_send(call, first, rest), name="relay-input")
    try:
        async for message in _told(pod, call):
            yield message
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _send(call: Any, first: Any, rest: AsyncIterator[Any]) -> None:
    try:
        await call.write(first)
        async for request in rest:
            await call.write(request)
        await call.done_writing()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        return  # the reading side tells why


async def _told(pod: Pod, call: Any) -> AsyncIterator[Any]:
    """The answers of a node, its failures as ApiErrors that name pod and node."""
    try:
        async for message in call:
            yield message
    except grpc.aio.AioRpcError as err:
        raise _failure(pod, err) from err
    finally:
        call.cancel()


_NODE_ERRORS: dict[grpc.StatusCode, type[errors.ApiError]] = {
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.INVALID_ARGUMENT: errors.BadRequest,
    grpc.StatusCode.FAILED_PRECONDITION: errors.BadRequest,
    grpc.StatusCode.UNIMPLEMENTED: errors.NotImplementedYet,
}


def _failure(pod: Pod, err: grpc.aio.AioRpcError) -> errors.ApiError:
    where = f"pod {pod.metadata.namespace}/{pod.metadata.name} on node {pod.spec.nodeName}"
    if err.code() is grpc.StatusCode.UNAVAILABLE:
        return errors.Unavailable(f"{where}: the kubelet does not answer: {err.details()}")
    return _NODE_ERRORS.get(err.code(), errors.InternalError)(f"{where}: {err.details()}")
