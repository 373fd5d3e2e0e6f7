"""Host ports: which port of the node leads to which pod. One record per sandbox, mirrored in the table's maps.

The records are what :meth:`HostPorts.load` rebuilds the kernel's maps from; a record is renamed into place, whole or
absent.
"""

import errno
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from pathlib import Path

from cri_runtime.linux.netlink import Netlink, NetlinkError, Request
from cri_runtime.network import nft
from cri_runtime.network.conntrack import UDP, forget_pod, forget_port
from cri_runtime.network.errors import HostPortTaken, NetworkError
from cri_runtime.network.ruleset import HOSTPORTS, HOSTPORTS_AT, table_of
from cri_runtime.network.types import PortMapping

PROTOCOLS = {0: 6, 1: 17, 2: 132}
"""CRI's Protocol to IP's: TCP, UDP, SCTP."""
NAMES = {6: "TCP", 17: "UDP", 132: "SCTP"}


@dataclass(frozen=True)
class HostPort:
    """One mapping, in the kernel's terms. An empty ``host_ip`` is every address of the node."""

    protocol: int
    host_port: int
    container_port: int
    host_ip: str
    pod_ip: str

    @property
    def map(self) -> str:
        """The map that holds it."""
        return HOSTPORTS_AT if self.host_ip else HOSTPORTS

    @property
    def key(self) -> bytes:
        """Its key there."""
        address = nft.ipv4(self.host_ip) if self.host_ip else b""
        return address + nft.protocol(self.protocol) + nft.port(self.host_port)

    @property
    def target(self) -> bytes:
        """What the key maps to."""
        return nft.ipv4(self.pod_ip) + nft.port(self.container_port)

    def __str__(self) -> str:
        return f"{self.host_ip or '*'}:{self.host_port}/{NAMES[self.protocol]}"


def plan_host_ports(mappings: Iterable[PortMapping], pod_ip: IPv4Address) -> list[HostPort]:
    """The mappings that map something. Raises NetworkError for a port or address that cannot be."""
    return [_plan(mapping, pod_ip) for mapping in mappings if mapping.host_port != 0]


def _plan(mapping: PortMapping, pod_ip: IPv4Address) -> HostPort:
    for port in (mapping.host_port, mapping.container_port):
        if not 0 < port < 65536:
            raise NetworkError(f"port mapping: {port} is not a port number (1 to 65535)")
    host_ip = "" if mapping.host_ip in ("", "0.0.0.0", "::") else mapping.host_ip
    try:
        address = str(IPv4Address(host_ip)) if host_ip else ""
    except ValueError as err:
        raise NetworkError(f"port mapping: host IP {host_ip!r} is not an IPv4 address") from err
    protocol = PROTOCOLS[mapping.protocol]
    return HostPort(protocol, mapping.host_port, mapping.container_port, address, str(pod_ip))


class HostPorts:
    """The host ports of all sandboxes of one bridge. Invariant: records, ``_held`` and the kernel's maps agree."""

    def __init__(self, directory: Path, bridge: str) -> None:
        self._directory = directory
        self._table = table_of(bridge)
        self._held: dict[str, list[HostPort]] = {}

    def load(self) -> list[Request]:
        """Read the records and return the requests that put them into empty maps."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for draft in self._directory.glob("*.tmp"):  # a crash between writing and renaming
            draft.unlink()
        records = list(self._directory.glob("*.json"))
        self._held = {path.stem: [HostPort(**port) for port in json.loads(path.read_bytes())] for path in records}
        return [request for ports in self._held.values() for request in self._additions(ports)]

    def claim(self, owner: str, ports: list[HostPort], kernel: Netlink) -> None:
        """Record and open ``ports`` for ``owner``. Raises HostPortTaken, having changed nothing."""
        self._refuse_taken(ports)
        self._write(owner, ports)
        self._held[owner] = ports
        try:
            kernel.request(*nft.transaction(self._additions(ports)))
        except NetlinkError as err:
            self._forget(owner)
            if err.errno == errno.EEXIST:
                raise HostPortTaken(f"one of the host ports {', '.join(map(str, ports))} is mapped already") from err
            raise
        for port in ports:
            if port.protocol == UDP:
                forget_port(kernel, port.host_port)

    def release(self, owner: str, kernel: Netlink) -> None:
        """Close what ``owner`` holds; nothing is fine."""
        if owner not in self._held:
            return
        for port in self._held[owner]:
            try:
                kernel.request(*nft.transaction([nft.delete_elements(self._table, port.map, [port.key])]))
            except NetlinkError as err:
                if err.errno != errno.ENOENT:  # somebody flushed the table: closed all the same
                    raise
            if port.protocol == UDP:
                forget_pod(kernel, IPv4Address(port.pod_ip))
        self._forget(owner)

    def reconcile(self, live: set[str], kernel: Netlink) -> None:
        """Close the ports whose owner is not in ``live``."""
        for owner in set(self._held) - live:
            self.release(owner, kernel)

    def _refuse_taken(self, ports: list[HostPort]) -> None:
        holders = {(port.map, port.key): owner for owner, held in self._held.items() for port in held}
        for port in ports:
            if (port.map, port.key) in holders:
                raise HostPortTaken(f"host port {port} belongs to sandbox {holders[port.map, port.key][:13]}")

    def _write(self, owner: str, ports: list[HostPort]) -> None:
        path = self._directory / f"{owner}.json"
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps([asdict(port) for port in ports]))
        draft.rename(path)

    def _forget(self, owner: str) -> None:
        del self._held[owner]
        (self._directory / f"{owner}.json").unlink(missing_ok=True)

    def _additions(self, ports: list[HostPort]) -> list[Request]:
        return [nft.add_elements(self._table, p.map, {p.key: p.target}, f"map host port {p}") for p in ports]
