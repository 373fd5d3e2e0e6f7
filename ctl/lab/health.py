"""Asking a component how it is."""

import asyncio
from contextlib import suppress

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ctl.lab.components import Component, Probe
from ctl.lab.layout import Layout
from protos.serving import TLS, open_channel

RETRY_S = 0.05
"""Pause between tries of an HTTP listener; unlike a gRPC channel it has no event for \"it is up now\"."""

FAST_RECONNECT = [("grpc.max_reconnect_backoff_ms", 200)]
SERVING = health_pb2.HealthCheckResponse.SERVING


async def wait_until_healthy(component: Component, layout: Layout) -> None:
    """Return once ``component`` says it serves. The caller sets the deadline."""
    if component.probe is Probe.HTTP:
        while not await _http_ok(component.address):  # noqa: ASYNC110 - another process's readiness has no Event
            await asyncio.sleep(RETRY_S)
        return
    async with open_channel(component.address, _tls(component, layout), FAST_RECONNECT) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while not await _says_serving(stub):
            pass


async def _says_serving(stub: health_pb2_grpc.HealthStub) -> bool:
    """Follow its health until it serves. False when the stream broke, to be tried again."""
    with suppress(grpc.RpcError):
        async for answer in stub.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True):
            if answer.status == SERVING:
                return True
    await asyncio.sleep(RETRY_S)
    return False


async def is_healthy(component: Component, layout: Layout, timeout_s: float = 2.0) -> bool:
    """Whether ``component`` serves now."""
    if component.probe is Probe.HTTP:
        return await _http_ok(component.address)
    async with open_channel(component.address, _tls(component, layout)) as channel:
        try:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.RpcError:
            return False
        return bool(answer.status == SERVING)


def _tls(component: Component, layout: Layout) -> TLS | None:
    return layout.admin_tls() if component.probe is Probe.GRPC_TLS else None


async def _http_ok(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    try:
        writer.write(f"GET /v2/ HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        return b" 200 " in await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()
