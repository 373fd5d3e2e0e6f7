"""Pod networks: the built-in bridge, and CNI plugins. Both keep :class:`cri_runtime.network.types.Network`."""

from cri_runtime.network.bridge import BridgeNetwork
from cri_runtime.network.cni import CNINetwork
from cri_runtime.network.types import Attachment, Network, PodIdentity, PortMapping

__all__ = ["Attachment", "BridgeNetwork", "CNINetwork", "Network", "PodIdentity", "PortMapping"]
