"""What a cluster chose when it was first brought up, and keeps: names, networks, ports. Stored in X/up.json."""

import json
import re
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ctl.lab.errors import LabError
from ctl.lab.layout import Layout

PORTS = {
    "store": 2379,
    "store-peer": 2380,
    "apiserver": 7443,
    "rest": 6443,
    "kubelet": 10250,
    "proxy": 10256,
    "controllers": 10257,
    "scheduler": 10259,
    "registry": 5000,
}
"""Port of each listener before the offset."""

NETWORKS = 10
"""How many clusters can be up beside each other, each with networks of its own."""


@dataclass(frozen=True)
class Settings:
    """See the module. ``network`` numbers the bridge and the address ranges, 0 for the first cluster of a machine."""

    node_name: str
    node_ip: str
    port_offset: int = 0
    network: int = 0
    rest: bool = False
    """Whether the apiserver also serves Kubernetes' HTTP API, for kubectl."""

    def port(self, listener: str) -> int:
        """The port of one listener of ``PORTS``."""
        return PORTS[listener] + self.port_offset

    def address(self, listener: str) -> str:
        """``host:port`` of one listener: loopback, but for the kubelet, which answers on its node's address."""
        host = self.node_ip if listener == "kubelet" else "127.0.0.1"
        return f"[{host}]:{self.port(listener)}" if ":" in host else f"{host}:{self.port(listener)}"

    @property
    def store_client(self) -> str:
        """Where the store's clients go."""
        return self.address("store")

    @property
    def bridge(self) -> str:
        """The device that joins the node's pods."""
        return f"knarr{self.network}"

    @property
    def pod_cidr(self) -> str:
        """Addresses of the node's pods."""
        return f"10.{244 + self.network}.0.0/24"

    @property
    def service_cidr(self) -> str:
        """Cluster IPs."""
        return "10.96.0.0/16" if self.network == 0 else f"10.{100 + self.network}.0.0/16"

    @property
    def load_balancer_cidr(self) -> str:
        """Addresses of services of type LoadBalancer."""
        return f"10.98.{self.network}.0/24"


def read_settings(layout: Layout) -> Settings:
    """What the cluster of ``layout`` chose. Raises LabError when it was never up, or the file is damaged."""
    try:
        return Settings(**json.loads(layout.settings.read_text()))
    except FileNotFoundError:
        raise LabError(f"no cluster was ever up in {layout.state_dir}: start one with 'ctl up' as root") from None
    except (ValueError, TypeError) as err:
        raise LabError(f"{layout.settings} is damaged ({err}): 'ctl down --purge' and start again") from err


def write_settings(layout: Layout, settings: Settings) -> None:
    """Keep ``settings``; the file is replaced whole, so a crash leaves the old or the new one."""
    fresh = layout.settings.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(settings), indent=2) + "\n")
    fresh.replace(layout.settings)


def settle(layout: Layout, **asked: Any) -> Settings:
    """The settings to use now: the stored ones with what was ``asked`` for changed (None: not asked), or new ones.

    Raises LabError when a name is not RFC 1123, a port would be out of range, or every network is taken.
    """
    try:
        settings = read_settings(layout) if layout.settings.exists() else _fresh()
    except PermissionError:
        settings = _fresh()
    settings = replace(settings, **{key: value for key, value in asked.items() if value is not None})
    if not _is_local(settings.node_ip):
        settings = replace(settings, node_ip=node_address())
    return check(settings)


def check(settings: Settings) -> Settings:
    """``settings`` when they can work. Raises LabError."""
    if not re.fullmatch(
        r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*", settings.node_name
    ):
        raise LabError(
            f'node name "{settings.node_name}" is not an RFC 1123 name: lower case letters, digits, "-" and "."'
        )
    for listener in PORTS:
        if not 1 <= settings.port(listener) <= 65535:
            raise LabError(
                f"--port-offset {settings.port_offset} puts the {listener} on port {settings.port(listener)}"
            )
    if not 0 <= settings.network < NETWORKS:
        raise LabError(f"--network {settings.network} is out of range: 0 to {NETWORKS - 1}")
    return settings


def _fresh() -> Settings:
    return Settings(node_name=node_name_of(socket.gethostname()), node_ip=node_address(), network=free_network())


def node_name_of(hostname: str) -> str:
    """The host's name as a node's: lower case, other characters become ``-``."""
    name = re.sub(r"[^a-z0-9.-]+", "-", hostname.lower()).strip("-.")
    return name or "node"


def free_network(exists: Callable[[str], bool] = lambda bridge: Path("/sys/class/net", bridge).exists()) -> int:
    """The first network whose bridge no other cluster of this machine has."""
    for network in range(NETWORKS):
        if not exists(Settings("", "", network=network).bridge):
            return network
    raise LabError(f"all {NETWORKS} networks are taken by other clusters: stop one with 'ctl --state-dir DIR down'")


def node_address() -> str:
    """The address this host uses towards others, found by asking the routing table; 127.0.0.1 without a route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1; a datagram socket's connect sends nothing
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _is_local(address: str) -> bool:
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
