"""CNI network configurations: which one a directory holds, and what a plugin is sent of it. Pure but for reading.

Source: CNI specification 1.0.0, sections 1 (configuration format) and 3 (execution of network configurations).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cri_runtime.network.errors import ConfigInvalid
from cri_runtime.network.types import PodIdentity, PortMapping

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
PROTOCOLS = {0: "tcp", 1: "udp", 2: "sctp"}


@dataclass(frozen=True)
class NetworkConfig:
    """A configuration list."""

    name: str
    version: str
    plugins: Sequence[Mapping[str, Any]]
    disable_check: bool = False


def find_config(directory: Path) -> NetworkConfig | None:
    """The first configuration of the directory, by file name; None when it has none. Raises ConfigInvalid."""
    names = sorted(path for path in directory.glob("*") if path.suffix in (".conflist", ".conf", ".json"))
    return load_config(names[0]) if names else None


def load_config(path: Path) -> NetworkConfig:
    """Read a configuration list, or a single plugin's configuration as a list of one. Raises ConfigInvalid."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError) as err:
        raise ConfigInvalid(f"CNI configuration {path}: {err}") from err
    if not isinstance(data, dict):
        raise ConfigInvalid(f"CNI configuration {path} is no JSON object")
    plugins = data.get("plugins") if path.suffix == ".conflist" else [data]
    if not data.get("name") or not isinstance(plugins, list) or not plugins:
        raise ConfigInvalid(f"CNI configuration {path} needs a name and at least one plugin")
    for plugin in plugins:
        if not isinstance(plugin, dict) or not plugin.get("type") or "/" in plugin["type"]:
            raise ConfigInvalid(f"CNI configuration {path}: each plugin needs a type, the name of a program")
    version = str(data.get("cniVersion", "0.3.0"))
    if version not in VERSIONS:
        raise ConfigInvalid(f"CNI configuration {path}: cniVersion {version} is none of {', '.join(VERSIONS)}")
    return NetworkConfig(data["name"], version, plugins, bool(data.get("disableCheck", False)))


def request_of(
    config: NetworkConfig, plugin: Mapping[str, Any], runtime: Mapping[str, Any], previous: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What one plugin reads from its stdin (section 3, "Deriving execution configuration from plugin configuration").

    ``runtime`` has a value per capability; a plugin gets those that it declares.
    """
    request = {key: value for key, value in plugin.items() if key not in ("capabilities", "args")}
    request |= {"cniVersion": config.version, "name": config.name}
    declared = {name for name, wanted in plugin.get("capabilities", {}).items() if wanted}
    if given := {name: value for name, value in runtime.items() if name in declared}:
        request["runtimeConfig"] = given
    if previous is not None:
        request["prevResult"] = previous
    return request


def runtime_config(mappings: Iterable[PortMapping]) -> dict[str, Any]:
    """The value of each capability that a pod has one for (CNI conventions: portMappings)."""
    ports = [
        {
            "hostPort": mapping.host_port,
            "containerPort": mapping.container_port,
            "protocol": PROTOCOLS[mapping.protocol],
            **({"hostIP": mapping.host_ip} if mapping.host_ip else {}),
        }
        for mapping in mappings
        if mapping.host_port
    ]
    return {"portMappings": ports} if ports else {}


def arguments(pod: PodIdentity, sandbox_id: str) -> str:
    """CNI_ARGS, as Kubernetes' runtimes give them."""
    pairs = {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": pod.namespace,
        "K8S_POD_NAME": pod.name,
        "K8S_POD_INFRA_CONTAINER_ID": sandbox_id,
        "K8S_POD_UID": pod.uid,
    }
    return ";".join(f"{key}={value}" for key, value in pairs.items())


def addresses_of(result: Mapping[str, Any]) -> tuple[list[str], str, str]:
    """(IPs, device, MAC) of the pod in a plugin's result: IPv4 first, devices in other namespaces left out."""
    interfaces = result.get("interfaces", [])
    inside = {i for i, interface in enumerate(interfaces) if interface.get("sandbox")}
    found = [ip["address"].partition("/")[0] for ip in result.get("ips", []) if ip.get("interface", 0) in inside]
    found = found or [ip["address"].partition("/")[0] for ip in result.get("ips", [])]
    device: Mapping[str, str] = next((interface for interface in interfaces if interface.get("sandbox")), {})
    ordered = sorted(found, key=lambda address: ":" in address)
    return ordered, device.get("name", "eth0"), device.get("mac", "")
