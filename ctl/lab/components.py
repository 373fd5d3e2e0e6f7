"""The processes of a node: what each is started with, where it listens, how its health is asked. Pure."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from ctl.lab.layout import Layout
from ctl.lab.settings import Settings


class Probe(Enum):
    """How to ask whether a component is healthy."""

    GRPC_TLS = "gRPC health over mutual TLS"
    GRPC = "gRPC health in plaintext"
    HTTP = "GET /v2/ answers 200"


@dataclass(frozen=True)
class Component:
    """One process. ``needs`` names components that must be healthy before it is started."""

    name: str
    argv: Sequence[str]
    address: str
    probe: Probe
    listens: Sequence[str] = field(default=())
    needs: Sequence[str] = field(default=())


def components(layout: Layout, settings: Settings) -> list[Component]:
    """Every component of a single node, in start order."""
    return [
        runtime(layout, settings),
        registry(layout, settings),
        store(layout, settings),
        apiserver(layout, settings),
        scheduler(layout, settings),
        controllers(layout, settings),
        proxy(layout, settings),
        kubelet(layout, settings),
    ]


def store(layout: Layout, settings: Settings) -> Component:
    """The etcd-compatible store, one member."""
    client, peer = f"https://{settings.address('store')}", f"https://{settings.address('store-peer')}"
    tls = layout.tls("store")
    argv = [
        *_module("raftstore"),
        "--name=default",
        f"--data-dir={layout.state_dir / 'store'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        f"--cert-file={tls.cert}",
        f"--key-file={tls.key}",
        f"--trusted-ca-file={tls.ca}",
        "--client-cert-auth",
        f"--peer-cert-file={tls.cert}",
        f"--peer-key-file={tls.key}",
        f"--peer-trusted-ca-file={tls.ca}",
        "--peer-client-cert-auth",
    ]
    listens = [settings.address("store"), settings.address("store-peer")]
    return Component("store", argv, settings.address("store"), Probe.GRPC_TLS, listens)


def apiserver(layout: Layout, settings: Settings) -> Component:
    """The cluster API."""
    server, client = layout.tls("apiserver"), layout.tls("apiserver-client")
    address = settings.address("apiserver")
    argv = [
        *_module("control", "apiserver"),
        f"--store-endpoints=https://{settings.address('store')}",
        f"--store-cafile={client.ca}",
        f"--store-certfile={client.cert}",
        f"--store-keyfile={client.key}",
        f"--listen={address}",
        f"--tls-cert-file={server.cert}",
        f"--tls-private-key-file={server.key}",
        f"--client-ca-file={server.ca}",
        f"--kubelet-client-certificate={client.cert}",
        f"--kubelet-client-key={client.key}",
        f"--kubelet-certificate-authority={client.ca}",
        f"--service-cluster-ip-range={settings.service_cidr}",
    ]
    listens = [address]
    if settings.rest:
        argv.append(f"--rest-listen={settings.address('rest')}")
        listens.append(settings.address("rest"))
    return Component("apiserver", argv, address, Probe.GRPC_TLS, listens, needs=["store"])


def scheduler(layout: Layout, settings: Settings) -> Component:
    """Pods to nodes."""
    address = settings.address("scheduler")
    argv = _module("control", "scheduler") + _client_flags(layout, settings, "scheduler") + [f"--listen={address}"]
    return Component("scheduler", argv, address, Probe.GRPC, [address], needs=["apiserver"])


def controllers(layout: Layout, settings: Settings) -> Component:
    """The controller manager."""
    address = settings.address("controllers")
    argv = _module("control", "controllers") + _client_flags(layout, settings, "controllers")
    argv += [f"--listen={address}", f"--load-balancer-cidr={settings.load_balancer_cidr}"]
    return Component("controllers", argv, address, Probe.GRPC, [address], needs=["apiserver"])


def kubelet(layout: Layout, settings: Settings) -> Component:
    """The node agent."""
    tls, address = layout.tls("kubelet"), settings.address("kubelet")
    argv = _module("control", "kubelet") + _client_flags(layout, settings, "kubelet")
    argv += [
        f"--node-name={settings.node_name}",
        f"--node-ip={settings.node_ip}",
        f"--runtime-endpoint={layout.runtime_endpoint}",
        f"--root-dir={layout.state_dir / 'kubelet'}",
        f"--listen={address}",
        f"--tls-cert-file={tls.cert}",
        f"--tls-private-key-file={tls.key}",
        f"--client-ca-file={tls.ca}",
    ]
    return Component("kubelet", argv, address, Probe.GRPC_TLS, [address], needs=["apiserver", "cri_runtime"])


def runtime(layout: Layout, settings: Settings) -> Component:
    """The node runtime."""
    argv = [
        *_module("cri_runtime"),
        f"--root={layout.state_dir / 'cri'}",
        f"--state={layout.run / 'cri'}",
        f"--listen={layout.runtime_endpoint}",
        f"--registries={layout.registries}",
        f"--pod-cidr={settings.pod_cidr}",
        f"--bridge={settings.bridge}",
    ]
    return Component("cri_runtime", argv, layout.runtime_endpoint, Probe.GRPC)


def proxy(layout: Layout, settings: Settings) -> Component:
    """The service proxy."""
    address = settings.address("proxy")
    argv = _module("proxy") + _client_flags(layout, settings, "proxy")
    argv += [
        f"--node-name={settings.node_name}",
        f"--listen={address}",
        f"--service-cidr={settings.service_cidr}",
        f"--load-balancer-cidr={settings.load_balancer_cidr}",
    ]
    return Component("proxy", argv, address, Probe.GRPC, [address], needs=["apiserver"])


def registry(layout: Layout, settings: Settings) -> Component:
    """The local image registry."""
    address = settings.address("registry")
    argv = [*_module("cri_runtime.registry"), f"--root={layout.state_dir / 'registry'}", f"--listen={address}"]
    return Component("registry", argv, address, Probe.HTTP, [address])


def _module(*words: str) -> list[str]:
    return [sys.executable, "-m", *words]


def _client_flags(layout: Layout, settings: Settings, identity: str) -> list[str]:
    tls = layout.tls(identity)
    return [
        f"--server={settings.address('apiserver')}",
        f"--client-certificate={tls.cert}",
        f"--client-key={tls.key}",
        f"--certificate-authority={tls.ca}",
    ]
