"""Which pod has which address: one symbolic link per address, named for it, pointing at its owner's id.

``symlink(2)`` is atomic and exclusive and holds the owner in the link itself, so a record is whole or absent, two
writers cannot take the same address, and ``ls -l`` shows the pool. The records need not outlive the machine: pods and
their addresses die with it. So nothing is synced.
"""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from cri_runtime.network.errors import AddressesExhausted


class AddressPool:
    """The addresses of a node's pod CIDR. The first host address is the gateway's.

    Not for two threads at once. Invariant: ``_owners`` mirrors the directory.
    """

    def __init__(self, directory: Path, cidr: str) -> None:
        self.network = IPv4Network(cidr)
        self._directory = directory
        self._first = int(self.network.network_address) + 2  # after the network's own and the gateway's
        self._size = self.network.num_addresses - 3  # without the broadcast address
        self._owners: dict[IPv4Address, str] = {}
        self._next = 0

    @property
    def gateway(self) -> IPv4Interface:
        """The node's address on the bridge."""
        return IPv4Interface((self.network.network_address + 1, self.network.prefixlen))

    def load(self) -> None:
        """Read the records; search onwards from the youngest, so that a freed address rests before it is given again.

        Links that name no address of this pool are left alone: they belong to an earlier CIDR, see :meth:`reconcile`.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        links = sorted(self._directory.iterdir(), key=lambda link: link.lstat().st_mtime_ns)
        self._owners = {IPv4Address(link.name): str(link.readlink()) for link in links}
        mine = [address for address in self._owners if address in self.network]
        self._next = (int(mine[-1]) - self._first + 1) if mine else 0

    def allocate(self, owner: str) -> IPv4Interface:
        """Take the next free address for ``owner``, durably. An owner has one address: asking again gives it again.

        Raises AddressesExhausted.
        """
        address = self.address_of(owner) or self._take(owner)
        return IPv4Interface((address, self.network.prefixlen))

    def _take(self, owner: str) -> IPv4Address:
        for offset in range(self._size):
            address = IPv4Address(self._first + (self._next + offset) % self._size)
            if address not in self._owners:
                (self._directory / str(address)).symlink_to(owner)
                self._owners[address] = owner
                self._next += offset + 1
                return address
        raise AddressesExhausted(f"all {self._size} addresses of {self.network} are taken: remove pods from this node")

    def address_of(self, owner: str) -> IPv4Address | None:
        """The address that ``owner`` holds."""
        return next((a for a, o in self._owners.items() if o == owner and a in self.network), None)

    def release(self, owner: str) -> None:
        """Free every address of ``owner``; none is fine."""
        for address in [address for address, holder in self._owners.items() if holder == owner]:
            (self._directory / str(address)).unlink(missing_ok=True)
            del self._owners[address]

    def reconcile(self, live: set[str]) -> None:
        """Free the addresses whose owner is not in ``live``."""
        for owner in set(self._owners.values()) - live:
            self.release(owner)

    def owners(self) -> dict[IPv4Address, str]:
        """Who holds what."""
        return dict(self._owners)
