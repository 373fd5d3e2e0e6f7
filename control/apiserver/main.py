"""``python -m control apiserver``: flags, and the coroutine that serves."""

import argparse
import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from control.api import errors
from control.apiserver.addresses import Allocator
from control.apiserver.bootstrap import bootstrap
from control.apiserver.compaction import run_compaction
from control.apiserver.events import EventLeases
from control.apiserver.feed import Feed
from control.apiserver.namespaces import run_namespace_lifecycle
from control.apiserver.registry import Registry
from control.apiserver.relay import NodeRelay
from control.apiserver.service import SERVICE, Cluster
from control.apiserver.storage import Storage
from protos.knarr.cluster_pb2_grpc import add_ClusterServicer_to_server
from protos.serving import TLS, new_server, running
from raftstore.client import Client

log = logging.getLogger(__name__)

RETRY_S = 0.5
SERVICE_CIDR = "10.96.0.0/16"


@dataclass(frozen=True)
class Options:
    """What an apiserver is told. ``listen`` is served with ``tls`` (None: plaintext), ``insecure_listen`` never."""

    store_endpoints: tuple[str, ...]
    listen: str
    store_tls: TLS | None = None
    tls: TLS | None = None
    insecure_listen: str = ""
    rest_listen: str = ""
    kubelet_tls: TLS | None = None
    service_cidr: str = SERVICE_CIDR


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``apiserver``."""
    add = parser.add_argument
    add("--store-endpoints", required=True, metavar="URLS", help="client URLs of the etcd store, comma-separated")
    add("--store-cafile", type=Path, metavar="FILE", help="CA that signed the store's certificate")
    add("--store-certfile", type=Path, metavar="FILE", help="our certificate for the store")
    add("--store-keyfile", type=Path, metavar="FILE", help="key of --store-certfile")
    add("--listen", default="127.0.0.1:7443", metavar="ADDR", help="where to serve gRPC (default %(default)s)")
    add("--tls-cert-file", type=Path, metavar="FILE", help="our server certificate; without one --listen is plaintext")
    add("--tls-private-key-file", type=Path, metavar="FILE", help="key of --tls-cert-file")
    add("--client-ca-file", type=Path, metavar="FILE", help="CA whose certificates name the users (CN, O = groups)")
    add(
        "--insecure-listen",
        default="",
        metavar="ADDR",
        help="also serve plaintext there, to anybody, as system:masters: loopback only, for other tools",
    )
    add(
        "--rest-listen",
        default="",
        metavar="ADDR",
        help="also serve Kubernetes' HTTP API there, for kubectl; with the same certificates as --listen",
    )
    add("--kubelet-client-certificate", type=Path, metavar="FILE", help="our certificate for kubelets")
    add("--kubelet-client-key", type=Path, metavar="FILE", help="key of --kubelet-client-certificate")
    add("--kubelet-certificate-authority", type=Path, metavar="FILE", help="CA that signed the kubelets' certificates")
    add(
        "--service-cluster-ip-range",
        default=SERVICE_CIDR,
        metavar="CIDR",
        help="where services get their cluster IPs from (default %(default)s)",
    )


def options_of(args: argparse.Namespace) -> Options:
    """The options that the flags say. Exits with a sentence when they do not fit together."""
    return Options(
        store_endpoints=tuple(args.store_endpoints.split(",")),
        store_tls=_tls("--store", args.store_certfile, args.store_keyfile, args.store_cafile),
        listen=args.listen,
        tls=_tls("--tls", args.tls_cert_file, args.tls_private_key_file, args.client_ca_file),
        insecure_listen=args.insecure_listen,
        rest_listen=args.rest_listen,
        kubelet_tls=_tls(
            "--kubelet",
            args.kubelet_client_certificate,
            args.kubelet_client_key,
            args.kubelet_certificate_authority,
        ),
        service_cidr=args.service_cluster_ip_range,
    )


def _tls(flags: str, cert: Path | None, key: Path | None, ca: Path | None) -> TLS | None:
    if not any((cert, key, ca)):
        return None
    if cert is None or key is None or ca is None:
        raise SystemExit(f"error: the {flags}... flags need certificate, key and CA together")
    return TLS(cert, key, ca)


async def serve(args: argparse.Namespace) -> None:
    """Serve as the flags say until cancelled."""
    await serve_options(options_of(args))


async def serve_options(options: Options, ready: asyncio.Event | None = None) -> None:
    """Serve until cancelled; ``ready`` is set when requests are answered. Raises OSError when it cannot listen."""
    async with apiserver(options) as registry:
        relay = NodeRelay(registry, options.kubelet_tls)
        server = new_server()
        add_ClusterServicer_to_server(Cluster(registry, relay), server)
        insecure = [options.insecure_listen] if options.insecure_listen else []
        async with (
            running(server, [options.listen], options.tls, [SERVICE], insecure),
            _rest(options, registry, relay),
        ):
            log.info("serving", extra={"listen": options.listen, "rest": options.rest_listen or "off"})
            if ready is not None:
                ready.set()
            try:
                await asyncio.Event().wait()
            finally:
                registry.feed.close()
                await relay.aclose()


@contextlib.asynccontextmanager
async def _rest(options: Options, registry: Registry, relay: NodeRelay) -> AsyncIterator[None]:
    """The REST gateway, when it is asked for: aiohttp is only loaded then."""
    if not options.rest_listen:
        yield
        return
    from control.apiserver.rest.gateway import Gateway, serving_rest

    tls = _server_context(options.tls) if options.tls else None
    async with serving_rest(Gateway(registry, relay), options.rest_listen, tls):
        yield


def _server_context(tls: TLS) -> ssl.SSLContext:
    """TLS for HTTP: a client certificate is looked at when there is one; who has none is told Unauthorized."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tls.ca))
    context.load_cert_chain(tls.cert, tls.key)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context


@contextlib.asynccontextmanager
async def apiserver(options: Options) -> AsyncIterator[Registry]:
    """A registry on the store with its background tasks running, the cluster's first objects made.

    Waits for the store. Leaving the block ends the tasks and the connection.
    """
    allocator = Allocator(options.service_cidr)
    async with Client(options.store_endpoints, options.store_tls) as etcd, asyncio.TaskGroup() as tasks:
        storage, feed = Storage(etcd), Feed(etcd)
        registry = Registry(storage, feed, allocator, EventLeases(storage))
        background = [
            tasks.create_task(feed.run(), name="feed"),
            tasks.create_task(run_namespace_lifecycle(registry), name="namespaces"),
            tasks.create_task(run_compaction(etcd), name="compaction"),
        ]
        await feed.ready.wait()
        await _until_done(registry, int(options.listen.rpartition(":")[2]))
        try:
            yield registry
        finally:
            for task in background:
                task.cancel()


async def _until_done(registry: Registry, port: int) -> None:
    while True:
        try:
            return await bootstrap(registry, port)
        except (errors.Unavailable, errors.Timeout) as err:
            log.warning("the store does not take the first objects yet", extra={"cause": err.message})
            await asyncio.sleep(RETRY_S)
