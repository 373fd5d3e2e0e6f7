"""What every knarr process shares: flags, logs, signals, TLS, and a gRPC server with health and reflection.

A service is a coroutine ``serve(...)`` that runs until it is cancelled, so that several can share one process::

    async def serve(listen: str, tls: TLS | None) -> None:
        server = new_server()
        add_kv(KV(), server)
        async with running(server, [listen], tls, services=["etcdserverpb.KV"]):
            await asyncio.Event().wait()

and its ``main`` is ``run(serve(...))``: SIGTERM or SIGINT cancels it, it drains, and the process exits 0.
"""

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

log = logging.getLogger("knarr")

DRAIN_S = 5.0
"""How long a stopping server lets running calls finish, seconds."""

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


class AddressInUse(OSError):
    """The listen address cannot be bound; the message names it and says what to do."""


@asynccontextmanager
async def running(
    server: grpc.aio.Server,
    listen: Iterable[str],
    tls: TLS | None = None,
    services: Sequence[str] = (),
    insecure: Iterable[str] = (),
) -> AsyncIterator[health.aio.HealthServicer]:
    """Serve ``server`` on the ``listen`` addresses for the length of the block, then drain it.

    Health answers SERVING for "" and every name in ``services``; reflection lists them. ``tls`` applies to ``listen``
    but never to ``unix:`` addresses; ``insecure`` addresses are plaintext. Raises AddressInUse.
    """
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    reflection.enable_server_reflection([*services, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
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


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that every service has."""
    parser.add_argument(
        "--log-format", choices=["text", "json"], default="text", help="one line of text or of JSON per event"
    )
    parser.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        default="info",
        help="least severe event that is logged",
    )


def configure_logging(component: str, log_format: str = "text", level: str = "info") -> None:
    """Log to stderr, one line per event, fields of ``extra=`` after the message. ``component`` names the process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter(component) if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("pyroute2").setLevel(logging.WARNING)


_STANDARD = set(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.123Z INFO raftstore.member became leader member=1 term=4``"""

    def format(self, record: logging.LogRecord) -> str:
        """See the class."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = f"{stamp}.{int(record.msecs):03d}Z {record.levelname} {record.name} {record.getMessage()}"
        line += "".join(f" {key}={_plain(value)}" for key, value in _fields(record).items())
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _plain(value: Any) -> str:
    text = str(value)
    return json.dumps(text) if not text or any(c.isspace() or c in '"=' for c in text) else text


class JSONFormatter(logging.Formatter):
    """One JSON object per line: ts, level, component, logger, msg and the event's fields."""

    def __init__(self, component: str) -> None:
        super().__init__()
        self.component = component

    def format(self, record: logging.LogRecord) -> str:
        """See the class."""
        event = {
            "ts": record.created,
            "level": record.levelname.lower(),
            "component": self.component,
            "logger": record.name,
            "msg": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event, default=str)


def run(service: Coroutine[Any, Any, None]) -> None:
    """Run a ``serve`` coroutine as this process's whole work.

    Exits 0 after SIGTERM or SIGINT, 1 with one line on stderr when the service cannot start or fails.
    """
    import uvloop

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_signalled(service))
    except OSError as err:
        sys.exit(f"error: {err}")
    except BaseExceptionGroup as group:
        errors = [err for err in _leaves(group) if isinstance(err, OSError)]
        if not errors or len(errors) != len(list(_leaves(group))):
            raise
        sys.exit("error: " + "; ".join(str(err) for err in errors))


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterable[BaseException]:
    for err in group.exceptions:
        if isinstance(err, BaseExceptionGroup):
            yield from _leaves(err)
        else:
            yield err


async def _until_signalled(service: Coroutine[Any, Any, None]) -> None:
    work = asyncio.ensure_future(service)
    loop = asyncio.get_running_loop()
    stopped = False

    def stop(name: str) -> None:
        nonlocal stopped
        stopped = True
        log.info("stopping", extra={"signal": name})
        work.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number.name)
    try:
        await work
    except asyncio.CancelledError:
        if not stopped:
            raise


def require_root(program: str) -> None:
    """Exit with a sentence unless this process is root."""
    if os.geteuid() != 0:
        sys.exit(f"error: {program} needs root (namespaces, mounts, cgroups and network devices): run it with sudo")
