"""Logs, exec and port-forward: relayed to the pod's node over mutual TLS, both ways."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc
import pytest

from control.api.codec import from_json
from control.client import Client, errors
from protos.k8s import core_v1_pb2 as core
from protos.knarr import node_pb2_grpc
from protos.knarr import stream_pb2 as stream
from protos.serving import new_server


class Kubelet(node_pb2_grpc.NodeServicer):
    """Answers like a kubelet whose containers echo."""

    async def Log(self, request: stream.LogRequest, context: Any) -> AsyncIterator[stream.LogChunk]:
        if request.target.container == "quiet":
            await context.abort(grpc.StatusCode.NOT_FOUND, "no log of container quiet yet")
        for index in range(3):
            yield stream.LogChunk(data=f"{request.target.container} {index}\n".encode())

    async def Exec(self, requests: Any, context: Any) -> AsyncIterator[stream.StreamResponse]:
        async for request in requests:
            which = request.WhichOneof("message")
            if which == "start":
                yield stream.StreamResponse(stdout=" ".join(request.start.command).encode())
            elif which == "stdin":
                yield stream.StreamResponse(stdout=request.stdin.upper())
            elif which == "stdin_closed":
                yield stream.StreamResponse(exit=stream.Exit(code=3))
                return

    async def PortForward(self, requests: Any, context: Any) -> AsyncIterator[stream.PortForwardResponse]:
        async for request in requests:
            if request.WhichOneof("message") == "data":
                yield stream.PortForwardResponse(data=request.data[::-1])


@pytest.fixture
def store_kind() -> str:
    return "etcd"


@pytest.fixture
async def cluster(store: Any, authority: Any, make_server: Any, free_port: int) -> AsyncIterator[Client]:
    """An apiserver, a kubelet on node n1, and pod web on it."""
    kubelet = new_server()
    node_pb2_grpc.add_NodeServicer_to_server(Kubelet(), kubelet)
    tls = authority.issue("system:node:n1", "system:nodes")
    port = kubelet.add_secure_port("127.0.0.1:0", tls.server_credentials())
    await kubelet.start()
    admin = authority.issue("kube-apiserver", "system:masters")
    server = make_server(store.url, None, admin, rest_listen=f"127.0.0.1:{free_port}")
    await server.start()
    async with Client(server.address) as client:
        node = core.Node()
        node.metadata.name = "n1"
        node.status.addresses.add(type="InternalIP", address="127.0.0.1")
        node.status.daemonEndpoints.kubeletEndpoint.Port = port
        await client.create(node)
        await client.update_status(node)
        for name in ("web", "pending"):
            await client.create(
                from_json(
                    {
                        "apiVersion": "v1",
                        "kind": "Pod",
                        "metadata": {"name": name, "namespace": "default"},
                        "spec": {"containers": [{"name": "c", "image": "i"}, {"name": "quiet", "image": "i"}]},
                    }
                )
            )
        await client.bind("default", "web", "n1")
        yield client
    await server.stop()
    await kubelet.stop(None)


def target(pod: str = "web", container: str = "") -> stream.ContainerRef:
    return stream.ContainerRef(namespace="default", pod=pod, container=container)


async def test_logs_of_the_first_container_stream_through(cluster: Client) -> None:
    chunks = [chunk.data async for chunk in cluster.log(stream.LogRequest(target=target()))]
    assert chunks == [b"c 0\n", b"c 1\n", b"c 2\n"]


async def test_what_cannot_be_reached_is_told(cluster: Client) -> None:
    async def fail(request: stream.LogRequest) -> None:
        async for _ in cluster.log(request):
            pass

    with pytest.raises(errors.BadRequest, match="container x is not valid for pod web: choose one of c, quiet"):
        await fail(stream.LogRequest(target=target(container="x")))
    with pytest.raises(errors.BadRequest, match="not on a node yet"):
        await fail(stream.LogRequest(target=target("pending")))
    with pytest.raises(errors.NotFound, match='pods "gone" not found'):
        await fail(stream.LogRequest(target=target("gone")))
    with pytest.raises(errors.NotFound, match="pod default/web on node n1: no log of container quiet yet"):
        await fail(stream.LogRequest(target=target(container="quiet")))
    node = await cluster.get(core.Node, "n1")
    node.status.daemonEndpoints.kubeletEndpoint.Port = 1
    await cluster.update_status(node)
    with pytest.raises(errors.Unavailable, match="the kubelet does not answer"):
        await fail(stream.LogRequest(target=target()))


async def test_exec_carries_both_directions_and_the_exit_code(cluster: Client) -> None:
    call = cluster.exec()
    await call.write(stream.ExecRequest(start=stream.ExecStart(target=target(), command=["echo", "hi"])))
    assert (await call.read()).stdout == b"echo hi"
    await call.write(stream.ExecRequest(stdin=b"abc"))
    assert (await call.read()).stdout == b"ABC"
    await call.write(stream.ExecRequest(stdin_closed=True))
    assert (await call.read()).exit.code == 3
    assert await call.read() is grpc.aio.EOF


async def test_a_stream_must_begin_with_its_start(cluster: Client) -> None:
    call = cluster.exec()
    await call.write(stream.ExecRequest(stdin=b"abc"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
        await call.read()
    assert isinstance(cluster.api_error(caught.value), errors.BadRequest)


async def test_port_forward_carries_a_connection(cluster: Client) -> None:
    call = cluster.port_forward()
    start = stream.PortForwardStart(namespace="default", pod="web", port=80)
    await call.write(stream.PortForwardRequest(start=start))
    for data in (b"abc", b"def"):
        await call.write(stream.PortForwardRequest(data=data))
        assert (await call.read()).data == data[::-1]
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


def status(message: bytes) -> dict[str, Any]:
    assert message[0] == 3
    found: dict[str, Any] = json.loads(message[1:])
    return found


async def test_exec_over_websocket_speaks_kubernetes_channels(cluster: Client, free_port: int) -> None:
    path = "/api/v1/namespaces/default/pods/web/exec?command=echo&command=hi&stdin=true&stdout=true"
    async with aiohttp.ClientSession(f"http://127.0.0.1:{free_port}") as http:
        async with http.ws_connect(path, protocols=("v5.channel.k8s.io",)) as socket:
            assert socket.protocol == "v5.channel.k8s.io"
            assert await socket.receive_bytes() == b"\x01echo hi"
            await socket.send_bytes(b'\x04{"Width":80,"Height":24}')
            await socket.send_bytes(b"\x00abc")
            assert await socket.receive_bytes() == b"\x01ABC"
            await socket.send_bytes(b"\xff\x00")
            ended = status(await socket.receive_bytes())
            assert (ended["reason"], ended["details"]["causes"][0]["message"]) == ("NonZeroExitCode", "3")
            closed = await socket.receive()
            assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, 1000)
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await http.ws_connect(f"{path}&container=nope", protocols=("v5.channel.k8s.io",))
        assert caught.value.status == 400
        async with http.get(path) as response:
            assert response.status == 400 and "upgrade to a WebSocket" in (await response.json())["message"]
