"""The built-in network: one bridge per node, one veth pair and one address per pod, one nftables table.

Attaching writes the address's record first and then makes kernel objects, so after a crash at any point
:meth:`BridgeNetwork.reconcile` finds everything by record or as a port of the bridge. All kernel work happens in one
thread with long-lived netlink sockets; only it enters other network namespaces, and only to open a socket there.
"""

import asyncio
import errno
import logging
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import TypeVar

from cri_runtime.linux import netlink
from cri_runtime.linux.netlink import Link, Netlink, NetlinkError
from cri_runtime.network import nft, ruleset
from cri_runtime.network.errors import DeviceConflict, KernelRefused, NetworkError
from cri_runtime.network.hostports import HostPort, HostPorts, plan_host_ports
from cri_runtime.network.ipam import AddressPool
from cri_runtime.network.node import forward_packets, stop_forwarding, uplink
from cri_runtime.network.types import Attachment, PodIdentity, PortMapping

log = logging.getLogger(__name__)

INTERFACE = "eth0"
CLUSTER_CIDRS = ("10.244.0.0/16", "10.96.0.0/16", "10.98.0.0/24")
"""All nodes' pods, service addresses, load balancer addresses: reached without masquerade."""

DEFAULT_MTU = 1500
"""Of a node without an uplink."""

GONE = frozenset({errno.ENODEV})
EXISTS = frozenset({errno.EEXIST})

T = TypeVar("T")


class BridgeNetwork:
    """The network of a node whose pods hang on ``bridge`` with addresses of ``pod_cidr``. See :class:`Network`.

    ``state_dir`` holds the records; ``mtu`` 0 takes the default route's.
    """

    def __init__(
        self,
        bridge: str,
        pod_cidr: str,
        state_dir: Path,
        *,
        cluster_cidrs: Sequence[str] = CLUSTER_CIDRS,
        mtu: int = 0,
    ) -> None:
        self._bridge = bridge
        self._mtu = mtu
        self._state_dir = state_dir
        self._cluster = [IPv4Network(cidr) for cidr in cluster_cidrs]
        self._pool = AddressPool(state_dir / "addresses", pod_cidr)
        self._ports = HostPorts(state_dir / "hostports", bridge)
        self._grave = 0x6B6E0000 | zlib.crc32(bridge.encode()) & 0xFFFF
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"network-{bridge}")
        self._gravedigger = ThreadPoolExecutor(1, thread_name_prefix=f"network-{bridge}-delete")
        self._owed: set[str] | None = None  # a reconcile that waits for the setup
        self._burial: Future[None] | None = None
        self._state = (False, "NetworkPluginNotReady", "the bridge network is not set up yet")
        # Made by the first _setup, used only in the thread:
        self._sockets: tuple[Netlink, Netlink] | None = None
        self._index = 0

    # --- the contract ------------------------------------------------------------------------------------------------

    async def setup(self) -> None:
        """Make or adopt the bridge, its address and its table; read the records. Raises NetworkError.

        When it fails the node is not ready, and each attach tries again.
        """
        try:
            await self._run(self._setup)
        except NetworkError as err:
            self._state = (False, "NetworkPluginNotReady", str(err))
            raise
        self._state = (True, "", "")
        if self._owed is not None:
            await self.reconcile(self._owed)

    async def attach(
        self, sandbox_id: str, netns: Path, pod: PodIdentity, port_mappings: Iterable[PortMapping] = ()
    ) -> Attachment:
        """Give the namespace ``eth0`` with an address, a default route, its host ports, and loopback. Raises
        NetworkError, having left nothing behind; so does cancellation."""
        if not self._state[0]:
            await self.setup()
        try:
            return await self._run(self._attach, sandbox_id, netns, list(port_mappings))
        except asyncio.CancelledError:
            self._thread.submit(self._undo, sandbox_id)  # runs after the attach, which a cancel cannot stop
            raise

    async def detach(self, sandbox_id: str, netns: Path | None = None) -> None:
        """Cut the pod off and free its address and host ports. Idempotent.

        When this returns nothing reaches the pod; its device is deleted within some 20 ms, :meth:`aclose` waits for it.
        """
        await self._run(self._detach, sandbox_id)

    async def reconcile(self, live: set[str]) -> None:
        """Free the addresses, host ports and devices of sandboxes that are not in ``live``; later, when the network is
        not set up yet."""
        self._owed = None if self._state[0] else live
        if self._owed is None:
            await self._run(self._reconcile, live)

    def ready(self) -> tuple[bool, str, str]:
        """CRI's NetworkReady condition: status, reason, message."""
        return self._state

    async def teardown(self) -> None:
        """Remove the bridge, its table, and what :meth:`setup` changed on the node."""
        await self._run(self._teardown)
        self._state = (False, "NetworkPluginNotReady", "the bridge network was torn down")

    async def aclose(self) -> None:
        """Wait for deletions and close the sockets; pods keep their network. May be repeated."""
        await asyncio.to_thread(self._gravedigger.shutdown)
        await asyncio.to_thread(self._thread.shutdown)
        self._close()

    # --- in the thread -----------------------------------------------------------------------------------------------

    async def _run(self, work: Callable[..., T], *args: object) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)
        except NetlinkError as err:
            raise KernelRefused(f"bridge {self._bridge}: cannot {err.filename}: {err.strerror}") from err
        except OSError as err:
            raise KernelRefused(f"bridge {self._bridge}: {err}") from err

    def _setup(self) -> None:
        if self._sockets is None:
            self._sockets = Netlink(), Netlink(netlink.NETLINK_NETFILTER)
        self._pool.load()
        entries = self._ports.load()
        self._mtu = self._mtu or self._uplink_mtu()
        self._index = self._adopt_bridge().index
        forward_packets(self._bridge, self._state_dir)
        self._tables.request(*ruleset.replace_table(self._bridge, self._pool.network, self._cluster, entries))
        self._routes.request(netlink.delete_group(self._grave, tolerated=GONE))

    @property
    def _routes(self) -> Netlink:
        assert self._sockets is not None, "setup comes first"
        return self._sockets[0]

    @property
    def _tables(self) -> Netlink:
        assert self._sockets is not None, "setup comes first"
        return self._sockets[1]

    def _adopt_bridge(self) -> Link:
        gateway = self._pool.gateway
        try:
            self._routes.request(netlink.add_bridge(self._bridge, self._mtu, mac_of(gateway)))
        except NetlinkError as err:
            if err.errno != errno.EEXIST:
                raise
        link = self._find(self._routes, self._bridge)
        if link.kind != "bridge":
            raise DeviceConflict(f"device {self._bridge} is no bridge: remove it or choose another name for the bridge")
        self._routes.request(netlink.set_link_up(link.index), netlink.add_address(link.index, gateway, EXISTS))
        return link

    def _uplink_mtu(self) -> int:
        device = uplink()
        return self._find(self._routes, device).mtu if device else DEFAULT_MTU

    def _attach(self, sandbox_id: str, netns: Path, mappings: list[PortMapping]) -> Attachment:
        try:
            address = self._pool.allocate(sandbox_id)
            self._connect(sandbox_id, netns, address)
            self._open_ports(sandbox_id, plan_host_ports(mappings, address.ip))
        except (OSError, NetworkError):
            self._undo(sandbox_id)
            raise
        return Attachment([str(address.ip)], INTERFACE, mac_of(address).hex(":"))

    def _connect(self, sandbox_id: str, netns: Path, address: IPv4Interface) -> None:
        descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._plug(device_of(sandbox_id), descriptor, mac_of(address))
            with Netlink.inside(descriptor) as pod:
                self._configure(pod, address)
        finally:
            os.close(descriptor)

    def _plug(self, device: str, netns: int, mac: bytes) -> None:
        pair = netlink.add_veth(device, self._index, self._mtu, INTERFACE, mac, netns)
        try:
            self._routes.request(pair)
        except NetlinkError as err:
            if err.errno != errno.EEXIST:
                raise
            # The same sandbox is attached again: an attempt that a crash cut short.
            self._routes.request(netlink.delete_link(device, GONE))
            self._routes.request(pair)

    def _configure(self, pod: Netlink, address: IPv4Interface) -> None:
        index = self._find(pod, INTERFACE).index
        pod.request(
            netlink.set_link_up(netlink.LOOPBACK_INDEX),
            netlink.set_link_up(index),
            netlink.add_address(index, address),
            netlink.add_route(self._pool.gateway.ip),
        )

    def _open_ports(self, sandbox_id: str, ports: list[HostPort]) -> None:
        if ports:
            # With br_netfilter the bridge itself translates, and must then hand a pod's own connection back to it.
            self._routes.request(netlink.set_hairpin(device_of(sandbox_id)))
            self._ports.claim(sandbox_id, ports, self._tables)

    def _undo(self, sandbox_id: str) -> None:
        """Detach, whatever there is to detach; what fails here is left to reconcile."""
        try:
            self._detach(sandbox_id)
        except (OSError, NetworkError) as err:
            log.warning("cannot undo an attach", extra={"sandbox": sandbox_id, "cause": str(err)})

    def _detach(self, sandbox_id: str) -> None:
        self._bury([device_of(sandbox_id)])
        self._ports.release(sandbox_id, self._tables)
        self._pool.release(sandbox_id)

    def _bury(self, devices: list[str]) -> None:
        if not devices:
            return
        self._routes.request(*(netlink.bury_link(device, self._grave, GONE) for device in devices))
        if self._burial is None or self._burial.running() or self._burial.done():
            self._burial = self._gravedigger.submit(self._delete_buried)

    def _delete_buried(self) -> None:
        with Netlink() as routes:
            try:
                routes.request(netlink.delete_group(self._grave, tolerated=GONE))
            except NetlinkError as err:
                log.warning("cannot delete devices of stopped pods", extra={"cause": str(err)})

    def _reconcile(self, live: set[str]) -> None:
        wanted = {device_of(sandbox_id) for sandbox_id in live}
        ports = [netlink.parse_link(answer).name for answer in self._routes.request(netlink.dump_ports(self._index))]
        self._bury([name for name in ports if name not in wanted])
        self._ports.reconcile(live, self._tables)
        self._pool.reconcile(live)

    def _teardown(self) -> None:
        missing = frozenset({errno.ENOENT})
        self._reconcile(set())
        self._routes.request(netlink.delete_link(self._bridge, GONE))
        try:
            self._tables.request(*nft.transaction([nft.delete_table(ruleset.table_of(self._bridge), missing)]))
        finally:
            stop_forwarding(self._state_dir)

    def _close(self) -> None:
        for kernel in self._sockets or ():
            kernel.close()

    @staticmethod
    def _find(kernel: Netlink, device: str) -> Link:
        return netlink.parse_link(kernel.request(netlink.get_link(device))[0])


def device_of(sandbox_id: str) -> str:
    """The name of the node's end of a pod's veth pair (at most 15 characters)."""
    return f"veth{sandbox_id[:11]}"


def mac_of(address: IPv4Interface | IPv4Address) -> bytes:
    """A locally administered MAC made of the address, so that no neighbour ever holds a stale one."""
    return b"\x0a\x58" + address.packed
