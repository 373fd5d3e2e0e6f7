"""The proxy as a coroutine: routes, data plane, gRPC window, and where the services come from."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from grpc_health.v1 import health_pb2

from control.client import Client
from protos.knarr import proxy_pb2_grpc
from protos.serving import TLS, new_server
from protos.serving import running as running_server
from proxy import dataplane, manifests
from proxy.dataplane import DataPlane
from proxy.routes import AnyIPRoutes
from proxy.server import SERVICE, Proxy
from proxy.services import Listener
from proxy.watch import ServiceWatch

log = logging.getLogger(__name__)

DRAIN_S = 5.0
"""How long a stopping proxy lets connections finish, seconds."""

Plans = dict[str, list[Listener]]


async def serve(
    listen: str,
    node: str,
    networks: Sequence[str],
    server: str = "",
    services: Path | None = None,
    tls: TLS | None = None,
    drain_s: float = DRAIN_S,
) -> None:
    """Run the node's proxy until cancelled; then stop accepting, drain, and take the routes away.

    Args:
        listen: address of the gRPC window and of health, which is SERVING once every known service is listened for.
        node: this node's name, for the ``Local`` traffic policies.
        networks: the CIDRs of service addresses, made local to the node.
        server: the apiserver to watch, or, without one, ``services``: a file of manifests.
        tls: our identity towards the apiserver; None for plaintext.
        drain_s: how long connections may go on after the end, seconds.
    Raises:
        RouteError, AddressInUse, manifests.ManifestError: it cannot start; nothing is left behind.
    """
    first = manifests.read_listeners(services, node) if services is not None else {}
    with AnyIPRoutes(networks) as routes:
        async with dataplane.running(drain_s, routes.cover) as plane:
            window = new_server()
            proxy_pb2_grpc.add_ProxyServicer_to_server(Proxy(plane), window)
            async with running_server(window, [listen], services=[SERVICE]) as health:
                for name in ("", SERVICE):
                    await health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
                ready = asyncio.Event()
                if services is not None:
                    source = _follow_file(services, node, plane, first, ready)
                else:
                    source = _follow_apiserver(server, tls, node, plane, ready)
                try:
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(source, name="services")
                        await ready.wait()
                        await plane.status()  # the data plane answers in order: every listener was opened, or refused
                        for name in ("", SERVICE):
                            await health.set(name, health_pb2.HealthCheckResponse.SERVING)
                        log.info("proxy is up", extra={"listen": listen, "services": len(plane.services())})
                finally:
                    plane.stop_accepting(drain_s)  # at once: the window may take its time with calls that run


async def _follow_apiserver(server: str, tls: TLS | None, node: str, plane: DataPlane, ready: asyncio.Event) -> None:
    async with Client(server, tls=tls) as client:
        await ServiceWatch(client, plane, node).run(ready)


async def _follow_file(path: Path, node: str, plane: DataPlane, first: Plans, ready: asyncio.Event) -> None:
    listeners = first
    async with manifests.changes(path) as changed:
        while True:
            for key in plane.services() - listeners.keys():
                plane.replace(key, [])
            for key, wanted in listeners.items():
                plane.replace(key, wanted)
            ready.set()
            await changed.wait()
            changed.clear()
            try:
                listeners = manifests.read_listeners(path, node)
            except manifests.ManifestError as err:
                log.error("manifests are not usable, the last ones stay in force", extra={"cause": str(err)})
