"""``python -m control kubelet``: the node agent of one machine."""

import argparse
import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from control.client import Client, Informer
from control.client.events import EventRecorder
from control.client.flags import add_client_flags, client_tls
from control.kubelet.config import DNS, Node, parse_resolv_conf
from control.kubelet.http import Http
from control.kubelet.images import Images
from control.kubelet.kubelet import Kubelet
from control.kubelet.machine import read_machine
from control.kubelet.nodestatus import PODS_MAX, Identity, NodeReporter
from control.kubelet.runtime import Runtime, RuntimeFailed
from control.kubelet.server import SERVICE, NodeService
from control.kubelet.services import Services
from control.kubelet.volumes import Volumes
from protos.cri import runtime_pb2 as cri
from protos.k8s import core_v1_pb2 as core
from protos.knarr.node_pb2_grpc import add_NodeServicer_to_server
from protos.serving import TLS, new_server, running

log = logging.getLogger(__name__)

RUNTIME_WAIT_S = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``kubelet``."""
    add_client_flags(parser)
    add = parser.add_argument
    add("--node-name", required=True, help="the name under which this machine registers")
    add("--node-ip", default="127.0.0.1", help="the address at which the apiserver and other nodes reach it")
    add("--node-labels", default="", help="further labels of the node: key=value, comma-separated")
    add("--max-pods", type=int, default=PODS_MAX, help="most pods that this node takes")
    add("--runtime-endpoint", default="unix:///run/knarr/cri.sock", help="the CRI runtime's socket")
    add("--root-dir", type=Path, default=Path("/var/lib/knarr/kubelet"), help="where volumes and logs of pods are kept")
    add("--listen", default="127.0.0.1:10250", help="address of the node API (mutual TLS)")
    add("--tls-cert-file", type=Path, help="this node's server certificate")
    add("--tls-private-key-file", type=Path, help="key of --tls-cert-file")
    add("--client-ca-file", type=Path, help="CA that signs the apiserver's client certificate")
    add(
        "--cluster-dns", default="", help="addresses of the cluster DNS, comma-separated; none: pods use the node's DNS"
    )
    add("--cluster-domain", default="cluster.local", help="domain of the cluster DNS")
    add("--resolv-conf", type=Path, default=Path("/etc/resolv.conf"), help="the node's own resolver configuration")


async def serve(args: argparse.Namespace) -> None:
    """Run this node's pods until cancelled; they outlive it."""
    async with services(args) as (shared, service_informer):
        identity = Identity(
            args.node_name, args.node_ip, int(args.listen.rpartition(":")[2]), labels=_labels(args.node_labels),
            pods_max=args.max_pods,
        )  # fmt: skip
        machine = read_machine(args.root_dir)
        reporter = NodeReporter(shared.client, shared.runtime, identity, machine, args.root_dir)
        kubelet = Kubelet(shared, reporter)
        tls = _server_tls(args)
        server = new_server()
        add_NodeServicer_to_server(NodeService(kubelet, shared.http, secure=tls is not None), server)
        async with running(server, [args.listen], tls, services=[SERVICE]):
            log.info("kubelet started", extra={"node": args.node_name, "runtime": args.runtime_endpoint})
            await kubelet.run(service_informer)


@asynccontextmanager
async def services(args: argparse.Namespace) -> AsyncIterator[tuple[Services, Informer[core.Service]]]:
    """Everything the pods' workers share, open for the length of the block. Waits for the runtime to answer."""
    root: Path = args.root_dir.absolute()
    for directory in (root, root / "pods", root / "logs"):
        directory.mkdir(parents=True, exist_ok=True)
    runtime = Runtime(args.runtime_endpoint)
    try:
        version = await _answer_of(runtime)
        machine = read_machine(root)
        node = Node(
            name=args.node_name,
            ip=args.node_ip,
            log_root=str(root / "logs"),
            memory_bytes=machine.memory_bytes,
            systemd_cgroups=await runtime.systemd_cgroups(),
            dns=_dns(args),
        )
        async with (
            Client(args.server, client_tls(args), field_manager="kubelet") as client,
            Http() as http,
        ):
            informer: Informer[core.Service] = Informer(client, core.Service)
            yield (
                Services(
                    client=client,
                    runtime=runtime,
                    images=Images(runtime),
                    volumes=Volumes(root / "pods"),
                    node=node,
                    recorder=EventRecorder(client, "kubelet", args.node_name),
                    http=http,
                    service_list=informer.list,
                    runtime_name=version.runtime_name,
                    allocatable={"cpu": str(machine.cpus), "memory": str(machine.memory_bytes)},
                ),
                informer,
            )
    finally:
        await runtime.aclose()


async def _answer_of(runtime: Runtime) -> cri.VersionResponse:
    """The runtime's version, once it answers: it may start after us."""
    waiting = False
    while True:
        try:
            return await runtime.version()
        except RuntimeFailed as err:
            if not waiting:
                log.warning("waiting for the runtime", extra={"endpoint": runtime.endpoint, "cause": str(err)})
            waiting = True
            await asyncio.sleep(RUNTIME_WAIT_S)


def _dns(args: argparse.Namespace) -> DNS:
    text = args.resolv_conf.read_text() if args.resolv_conf.exists() else ""
    cluster = tuple(address for address in args.cluster_dns.split(",") if address)
    return replace(parse_resolv_conf(text), cluster=cluster, domain=args.cluster_domain)


def _labels(text: str) -> tuple[tuple[str, str], ...]:
    pairs = (entry.partition("=") for entry in text.split(",") if entry)
    return tuple((key, value) for key, _, value in pairs)


def _server_tls(args: argparse.Namespace) -> TLS | None:
    files = (args.tls_cert_file, args.tls_private_key_file, args.client_ca_file)
    if not any(files):
        return None
    if not all(files):
        raise SystemExit("error: --tls-cert-file, --tls-private-key-file and --client-ca-file are needed together")
    return TLS(*files)
