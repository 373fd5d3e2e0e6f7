"""The words that the runtime and its network share, and the contract both networks keep."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class PortMapping(Protocol):
    """The shape of CRI's PortMapping message: protocol 0 TCP, 1 UDP, 2 SCTP; host_port 0 maps nothing; an empty
    host_ip means every address of the node."""

    @property
    def protocol(self) -> int:
        """0 TCP, 1 UDP, 2 SCTP."""

    @property
    def container_port(self) -> int:
        """The port inside the pod."""

    @property
    def host_port(self) -> int:
        """The port on the node; 0 maps nothing."""

    @property
    def host_ip(self) -> str:
        """The one address of the node to map; empty for all."""


@dataclass(frozen=True)
class PodIdentity:
    """Which pod, in Kubernetes' terms; plugins and logs name it."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True)
class Attachment:
    """What a pod got: its addresses (the first is the pod's IP), and its device's name and MAC."""

    ips: list[str]
    interface: str
    mac: str


class Network(Protocol):
    """Gives pods their network. Every method may be repeated after a crash, and converges."""

    async def setup(self) -> None:
        """Make or adopt what all pods share. Raises NetworkError."""

    async def attach(
        self, sandbox_id: str, netns: Path, pod: PodIdentity, port_mappings: Iterable[PortMapping] = ()
    ) -> Attachment:
        """Connect a network namespace. Raises NetworkError, having left nothing behind."""

    async def detach(self, sandbox_id: str, netns: Path | None = None) -> None:
        """Disconnect a pod and free what it held. Idempotent; the namespace may be gone already."""

    async def reconcile(self, live: set[str]) -> None:
        """Free whatever belongs to no sandbox in ``live``: what a crash left behind."""

    def ready(self) -> tuple[bool, str, str]:
        """CRI's NetworkReady condition: status, reason, message."""

    async def teardown(self) -> None:
        """Remove what :meth:`setup` made. Only when no pods remain."""

    async def aclose(self) -> None:
        """Stop; pods keep their network."""
