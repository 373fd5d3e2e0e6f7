"""The node API (protos/knarr/node.proto): what the apiserver asks of this kubelet. Errors are mapped here and only
here.
"""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc

from control.kubelet.http import Http
from control.kubelet.kubelet import Kubelet
from control.kubelet.logs import Query, read_log
from control.kubelet.runtime import Runtime, RuntimeFailed
from control.kubelet.state import Container
from control.kubelet.stats import Stats
from control.kubelet.streams import StreamFailed, port_forward, remote_command
from control.kubelet.worker import PodWorker
from protos.cri import runtime_pb2 as cri
from protos.knarr import node_pb2, node_pb2_grpc
from protos.knarr import stream_pb2 as pb

log = logging.getLogger(__name__)

SERVICE = "knarr.node.v1.Node"
MASTERS = "system:masters"


class NotHere(Exception):
    """No such pod or container on this node."""


class NotNow(Exception):
    """The container is not in a state that allows it."""


WIRE: dict[type[Exception], grpc.StatusCode] = {
    NotHere: grpc.StatusCode.NOT_FOUND,
    NotNow: grpc.StatusCode.FAILED_PRECONDITION,
    FileNotFoundError: grpc.StatusCode.NOT_FOUND,
    RuntimeFailed: grpc.StatusCode.INTERNAL,
    StreamFailed: grpc.StatusCode.INTERNAL,
}
CAUGHT: tuple[type[Exception], ...] = tuple(WIRE)


class NodeService(node_pb2_grpc.NodeServicer):
    """See the proto. ``secure``: callers are known by certificate, and only system:masters (the apiserver) may call."""

    def __init__(self, kubelet: Kubelet, http: Http, secure: bool) -> None:
        self.kubelet, self.http, self.secure = kubelet, http, secure
        self.runtime: Runtime = kubelet.services.runtime
        self.stats = Stats(self.runtime)

    async def Log(self, request: pb.LogRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[pb.LogChunk]:
        """Stream a container's log."""
        await self._authorise(context)
        try:
            worker = self._worker(request.target)
            container = _instance(worker, request.target.container, request.previous)
            query = Query(
                follow=request.follow and not request.previous,
                timestamps=request.timestamps,
                since_ns=_since_ns(request),
                tail_lines=request.tail_lines if request.HasField("tail_lines") else None,
                limit_bytes=request.limit_bytes,
            )
            path = Path(container.log_path)
            async with aclosing(read_log(path, query, lambda: _alive(worker, container.id))) as chunks:
                async for data in chunks:
                    yield pb.LogChunk(data=data)
        except CAUGHT as err:
            await _abort(context, err)

    async def Exec(self, requests: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[pb.StreamResponse]:
        """Run a command in a container."""
        await self._authorise(context)
        try:
            start = (await _first(requests)).start
            container = _running(self._worker(start.target), start.target.container)
            answer = await self.runtime.call(
                "Exec",
                cri.ExecRequest(
                    container_id=container.id,
                    cmd=start.command,
                    tty=start.tty,
                    stdin=start.stdin,
                    stdout=start.stdout or not (start.stdin or start.stderr),
                    stderr=start.stderr and not start.tty,
                ),
            )
            async with aclosing(remote_command(self.http, answer.url, requests, start.stdin)) as messages:
                async for message in messages:
                    yield message
        except CAUGHT as err:
            await _abort(context, err)

    async def Attach(self, requests: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[pb.StreamResponse]:
        """Join a container's first process."""
        await self._authorise(context)
        try:
            start = (await _first(requests)).start
            container = _running(self._worker(start.target), start.target.container)
            answer = await self.runtime.call(
                "Attach",
                cri.AttachRequest(
                    container_id=container.id,
                    tty=start.tty,
                    stdin=start.stdin,
                    stdout=start.stdout or not (start.stdin or start.stderr),
                    stderr=start.stderr and not start.tty,
                ),
            )
            async with aclosing(remote_command(self.http, answer.url, requests, start.stdin)) as messages:
                async for message in messages:
                    yield message
        except CAUGHT as err:
            await _abort(context, err)

    async def PortForward(
        self, requests: Any, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.PortForwardResponse]:
        """Carry one TCP connection into a pod."""
        await self._authorise(context)
        try:
            start = (await _first(requests)).start
            worker = self._worker(pb.ContainerRef(namespace=start.namespace, pod=start.pod))
            sandbox = worker.subject.runtime.sandbox if worker.subject.runtime is not None else None
            if sandbox is None:
                raise NotNow(f"pod {start.namespace}/{start.pod} is not running")
            request = cri.PortForwardRequest(pod_sandbox_id=sandbox.id, port=[start.port])
            answer = await self.runtime.call("PortForward", request)
            async with aclosing(port_forward(self.http, answer.url, requests)) as messages:
                async for message in messages:
                    yield message
        except CAUGHT as err:
            await _abort(context, err)

    async def Stats(self, request: node_pb2.StatsRequest, context: grpc.aio.ServicerContext) -> node_pb2.StatsResponse:
        """Usage of node and pods."""
        await self._authorise(context)
        try:
            return await self.stats.read()
        except RuntimeFailed as err:
            await _abort(context, err)
            raise

    async def _authorise(self, context: grpc.aio.ServicerContext) -> None:
        if self.secure and MASTERS not in _organisations(context):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "the node API answers only to the apiserver")

    def _worker(self, target: pb.ContainerRef) -> PodWorker:
        worker = self.kubelet.find(target.namespace, target.pod)
        if worker is None:
            raise NotHere(f'pod "{target.pod}" in namespace "{target.namespace}" is not on this node')
        return worker


def _organisations(context: grpc.aio.ServicerContext) -> list[str]:
    # Here, because it is large and an idle node is asked nothing.
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    pems = context.auth_context().get("x509_pem_cert") or []
    if not pems:
        return []
    subject = x509.load_pem_x509_certificate(pems[0]).subject
    return [str(entry.value) for entry in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]


async def _first(requests: Any) -> Any:
    async for request in requests:
        return request
    raise NotNow("the stream ended before its start message")


async def _abort(context: grpc.aio.ServicerContext, err: BaseException) -> None:
    code = next(code for kind, code in WIRE.items() if isinstance(err, kind))
    await context.abort(code, str(err))


def _instance(worker: PodWorker, name: str, previous: bool) -> Container:
    """The instance whose log is meant. Raises NotHere, NotNow."""
    found = worker.subject.runtime.instances(_default(worker, name)) if worker.subject.runtime is not None else []
    position = 1 if previous else 0
    if len(found) > position:
        return found[position]
    if previous:
        raise NotHere(f'previous terminated container "{name}" in pod "{worker.subject.name}" not found')
    raise NotNow(f'container "{name}" in pod "{worker.subject.name}" is waiting to start')


def _running(worker: PodWorker, name: str) -> Container:
    container = _instance(worker, name, previous=False)
    if not container.running:
        raise NotNow(f'container "{container.name}" in pod "{worker.subject.name}" is not running')
    return container


def _default(worker: PodWorker, name: str) -> str:
    pod = worker.subject.pod
    if name or pod is None:
        return name
    return pod.metadata.annotations.get("kubectl.kubernetes.io/default-container") or pod.spec.containers[0].name


def _alive(worker: PodWorker, container_id: str) -> bool:
    """True while the container may still write to its log."""
    known = worker.subject.runtime.containers if worker.subject.runtime is not None else ()
    return any(container.id == container_id and not container.over for container in known)


def _since_ns(request: pb.LogRequest) -> int:
    return time.time_ns() - request.since_seconds * 1_000_000_000 if request.since_seconds else request.since_time_ns
