"""What every knarr process shares: flags, logs, signals, TLS, and a gRPC server with health and reflection.

A service is a coroutine ``serve(...)`` that runs until it is cancelled, so that several can share one process::

    async def serve(listen: str, tls: TLS | None) -> None:
        server = new_server()
        add_kv(KV(), server)
        async with running(server, [listen], tls, services=["etcdserverpb.KV"]):
            await asyncio.Event().wait()

and its ``main`` is ``run(serve(...))``: SIGTERM or SIGINT cancels it, it drains, and the process exits 0.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from protos.process import DRAIN_S, add_flags, configure_logging, require_root, run

if TYPE_CHECKING:
    from grpc_health.v1 import health

__all__ = [
    "DRAIN_S",
    "TLS",
    "AddressInUse",
    "add_flags",
    "configure_logging",
    "new_server",
    "open_channel",
    "require_root",
    "run",
    "running",
    "target_of",
    "unimplemented",
]

CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_http_proxy", 0),
]

REFLECTION = "grpc.reflection.v1alpha.ServerReflection"

SERVER_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_send_message_length", -1),
    # Clients written in Go ping every 10 s; without these two lines C-core answers GOAWAY too_many_pings.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A second process on the same port is a mistake to report, not a load balancer.
    ("grpc.so_reuseport", 0),
]


@dataclass(frozen=True)
class TLS:
    """The PEM files of one end of a mutual TLS connection."""

    cert: Path
    key: Path
    ca: Path

    def server_credentials(self, require_client: bool = True) -> grpc.ServerCredentials:
        """Credentials that show ``cert`` and, when ``require_client``, accept only clients that ``ca`` signed.

        Raises OSError for an unreadable file.
        """
        pair = (self.key.read_bytes(), self.cert.read_bytes())
        return grpc.ssl_server_credentials([pair], self.ca.read_bytes(), require_client_auth=require_client)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Credentials that show ``cert`` and accept only servers that ``ca`` signed. Raises OSError likewise."""
        return grpc.ssl_channel_credentials(self.ca.read_bytes(), self.key.read_bytes(), self.cert.read_bytes())


def target_of(address: str) -> str:
    """gRPC's form of ``host:port``, ``http(s)://host:port`` or ``unix:///path``: URL schemes go, unix stays."""
    for scheme in ("http://", "https://"):
        if address.startswith(scheme):
            return address.removeprefix(scheme).rstrip("/")
    return address


def open_channel(
    address: str, tls: TLS | None = None, options: Sequence[tuple[str, Any]] = (), server_name: str | None = None
) -> grpc.aio.Channel:
    """A channel to ``address``, mutual TLS when ``tls`` is given. ``server_name`` overrides the name checked in the
    server's certificate. The caller closes it."""
    chosen: list[tuple[str, Any]] = [*CHANNEL_OPTIONS, *options]
    target = target_of(address)
    if target.startswith("unix:"):
        chosen.append(("grpc.default_authority", "localhost"))
    if tls is None:
        return grpc.aio.insecure_channel(target, options=chosen)
    if server_name is not None:
        chosen.append(("grpc.ssl_target_name_override", server_name))
    return grpc.aio.secure_channel(target, tls.channel_credentials(), options=chosen)


def new_server(
    options: Sequence[tuple[str, Any]] = (), interceptors: Sequence[grpc.aio.ServerInterceptor] = ()
) -> grpc.aio.Server:
    """A gRPC server with the options every service needs; later ``options`` win."""
    server = grpc.aio.server(options=[*SERVER_OPTIONS, *options], interceptors=interceptors)
    # grpcio waits for calls with one task per registered method and walks all of them on each call. With 50 methods the
    # generic handlers, which are registered too and route everything, answer twice as many calls a second.
    server.add_registered_method_handlers = lambda service, handlers: None
    return server


class Reflection(grpc.GenericRpcHandler):
    """Server reflection, loaded when somebody asks for it: few do, and every process would keep it in memory."""

    def __init__(self, services: Sequence[str]) -> None:
        self._services = services
        self._handlers: dict[str, grpc.RpcMethodHandler] = {}

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """See grpc: the handler of a method, None when it is not reflection's."""
        if not details.method.startswith(f"/{REFLECTION}/"):
            return None
        if not self._handlers:
            self._handlers = self._load()
        return self._handlers.get(details.method)

    def _load(self) -> dict[str, grpc.RpcMethodHandler]:
        from grpc_reflection.v1alpha import reflection, reflection_pb2

        handler = grpc.stream_stream_rpc_method_handler(
            reflection.aio.ReflectionServicer(self._services).ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        return {f"/{REFLECTION}/ServerReflectionInfo": handler}


class AddressInUse(OSError):
    """The listen address cannot be bound; the message names it and says what to do."""


@asynccontextmanager
async def running(
    server: grpc.aio.Server,
    listen: Iterable[str],
    tls: TLS | None = None,
    services: Sequence[str] = (),
    insecure: Iterable[str] = (),
) -> AsyncIterator["health.aio.HealthServicer"]:
    """Serve ``server`` on the ``listen`` addresses for the length of the block, then drain it.

    Health answers SERVING for "" and every name in ``services``; reflection lists them. ``tls`` applies to ``listen``
    but never to ``unix:`` addresses; ``insecure`` addresses are plaintext. Raises AddressInUse.
    """
    # Here, because clients need neither and are to start quickly.
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc

    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    server.add_generic_rpc_handlers([Reflection([*services, health.SERVICE_NAME, REFLECTION])])
    for address in listen:
        _bind(server, address, None if address.startswith("unix:") else tls)
    for address in insecure:
        _bind(server, address, None)
    await server.start()
    for name in ("", *services):
        await healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield healthy
    finally:
        await healthy.enter_graceful_shutdown()
        await server.stop(DRAIN_S)


def _bind(server: grpc.aio.Server, address: str, tls: TLS | None) -> None:
    target = target_of(address)
    try:
        if tls is None:
            server.add_insecure_port(target)
        else:
            server.add_secure_port(target, tls.server_credentials())
    except RuntimeError as err:
        raise AddressInUse(
            f"cannot listen on {address}: the address is in use or not this machine's; "
            f"stop what holds it or choose another"
        ) from err


S = TypeVar("S")


def unimplemented(servicer: type[S]) -> type[S]:
    """Decorate a generated servicer's subclass: rpcs it does not define answer UNIMPLEMENTED with a sentence."""
    base = servicer.__mro__[1]
    for name in vars(base):
        if not name.startswith("_") and name not in vars(servicer):
            setattr(servicer, name, _refusal(f"{base.__name__.removesuffix('Servicer')}.{name}"))
    return servicer


def _refusal(rpc: str) -> Any:
    async def refuse(self: Any, request: Any, context: grpc.aio.ServicerContext) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{rpc} is not implemented by this knarr version")

    return refuse
