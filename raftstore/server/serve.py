"""The gRPC server of a member: every etcd service on the client URLs."""

import socket
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import grpc

from protos.etcd import election_pb2_grpc, lock_pb2_grpc, rpc_pb2_grpc
from protos.serving import AddressInUse, new_server, running
from raftstore.config import Config
from raftstore.limits import KEEPALIVE_INTERVAL_S, KEEPALIVE_TIMEOUT_S, RECEIVE_OVERHEAD_BYTES
from raftstore.member import Member, open_member
from raftstore.server.auth import Auth
from raftstore.server.cluster import Cluster
from raftstore.server.compaction import compact_repeatedly
from raftstore.server.election import Election
from raftstore.server.kv import KV
from raftstore.server.lease import Lease
from raftstore.server.lock import Lock
from raftstore.server.maintenance import Maintenance
from raftstore.server.watch import add_watch

SERVICES = [
    "etcdserverpb.KV",
    "etcdserverpb.Watch",
    "etcdserverpb.Lease",
    "etcdserverpb.Cluster",
    "etcdserverpb.Maintenance",
    "etcdserverpb.Auth",
    "v3electionpb.Election",
    "v3lockpb.Lock",
]


async def serve(config: Config) -> None:
    """Run a member and its client endpoints until cancelled.

    Raises ValueError for settings that cannot work, StorageError for files that cannot be used, AddressInUse.
    """
    config.check()
    for url in (*config.listen_client_urls, *config.listen_metrics_urls):
        _check_free(url)
    async with AsyncExitStack() as stack:
        member = await stack.enter_async_context(open_member(config))
        for url in config.listen_metrics_urls:
            from raftstore.server.http import serving_http  # 12 MiB that few need

            await stack.enter_async_context(serving_http(member, url))
        server = client_server(member)
        secure = [url for url in config.listen_client_urls if url.startswith("https:")]
        plain = [url for url in config.listen_client_urls if not url.startswith("https:")]
        await stack.enter_async_context(running(server, secure, config.tls, SERVICES, insecure=plain))
        await compact_repeatedly(member)


def _check_free(url: str) -> None:
    """Raise AddressInUse now, before the data directory is touched, rather than when gRPC binds the address."""
    parts = urlsplit(url)
    family = socket.AF_INET6 if ":" in (parts.hostname or "") else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((parts.hostname or "", parts.port or 0))
        except OSError as err:
            raise AddressInUse(f"cannot listen on {url}: {err.strerror}; stop what holds it or choose another") from err


def client_server(member: Member) -> grpc.aio.Server:
    """A server with every etcd service of ``member``, not yet listening."""
    receive_bytes_max = member.config.max_request_bytes + RECEIVE_OVERHEAD_BYTES
    server = new_server(
        [
            ("grpc.max_receive_message_length", receive_bytes_max),
            ("grpc.keepalive_time_ms", int(KEEPALIVE_INTERVAL_S * 1000)),
            ("grpc.keepalive_timeout_ms", int(KEEPALIVE_TIMEOUT_S * 1000)),
        ]
    )
    rpc_pb2_grpc.add_KVServicer_to_server(KV(member), server)
    add_watch(member, server)
    rpc_pb2_grpc.add_LeaseServicer_to_server(Lease(member), server)
    rpc_pb2_grpc.add_ClusterServicer_to_server(Cluster(member), server)
    rpc_pb2_grpc.add_MaintenanceServicer_to_server(Maintenance(member), server)
    rpc_pb2_grpc.add_AuthServicer_to_server(Auth(member), server)
    election_pb2_grpc.add_ElectionServicer_to_server(Election(member), server)
    lock_pb2_grpc.add_LockServicer_to_server(Lock(member), server)
    return server
