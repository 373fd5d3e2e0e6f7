"""What can go wrong when a pod is given a network.

NetworkError
├── AddressesExhausted   every address of the pod CIDR is taken
├── HostPortTaken        another pod has the host port
├── DeviceConflict       the bridge's name belongs to some other device
├── ConfigInvalid        a CNI configuration cannot be used
├── PluginFailed         a CNI plugin refused; carries its code, message and details
└── KernelRefused        a netlink request failed; chained to the OSError
"""


class NetworkError(Exception):
    """The root: the pod has no network, and nothing was left behind."""


class AddressesExhausted(NetworkError):
    """Every address of the pod CIDR is taken: remove pods or give the node a larger CIDR."""


class HostPortTaken(NetworkError):
    """Another pod on this node has the host port."""


class DeviceConflict(NetworkError):
    """The bridge's name belongs to a device that is no bridge."""


class ConfigInvalid(NetworkError):
    """A CNI configuration cannot be used; the message names the file."""


class KernelRefused(NetworkError):
    """The kernel refused a netlink request; the cause says which and why."""


class PluginFailed(NetworkError):
    """A CNI plugin answered with an error, or not at all (CNI 1.0, section 5 "Error")."""

    def __init__(self, plugin: str, command: str, code: int, message: str, details: str = "") -> None:
        super().__init__(f"CNI plugin {plugin} failed to {command}: {message}" + (f" ({details})" if details else ""))
        self.plugin = plugin
        self.command = command
        self.code = code
