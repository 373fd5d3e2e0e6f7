"""crictl's pod and container configs: CRI messages as JSON or YAML, in snake_case or camelCase."""

import base64
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctl.errors import CtlError

if TYPE_CHECKING:
    from protos.cri.runtime_pb2 import ContainerConfig, PodSandboxConfig


def load_pod_config(path: Path) -> "PodSandboxConfig":
    """Read a PodSandboxConfig. A missing uid is made up. Raises CtlError naming file and field."""
    from protos.cri.runtime_pb2 import PodSandboxConfig

    config = _load(path, PodSandboxConfig())
    if not (config.metadata.name and config.metadata.namespace):
        raise CtlError(f"{path}: metadata.name and metadata.namespace must be set")
    config.metadata.uid = config.metadata.uid or str(uuid.uuid4())
    return config


def load_container_config(path: Path) -> "ContainerConfig":
    """Read a ContainerConfig. Raises CtlError naming file and field."""
    from protos.cri.runtime_pb2 import ContainerConfig

    config = _load(path, ContainerConfig())
    if not config.metadata.name:
        raise CtlError(f"{path}: metadata.name must be set")
    if not config.image.image:
        raise CtlError(f"{path}: image.image must be set")
    return config


def _load(path: Path, message: Any) -> Any:
    import yaml
    from google.protobuf.json_format import ParseDict, ParseError

    try:
        data = yaml.safe_load(path.read_text())  # JSON is YAML
    except FileNotFoundError:
        raise CtlError(f"config at {path} not found") from None
    except yaml.YAMLError as err:
        raise CtlError(f"{path} is neither JSON nor YAML: {' '.join(str(err).split())}") from err
    if not isinstance(data, dict):
        raise CtlError(f"{path} holds no {message.DESCRIPTOR.name}: an object is expected")
    for unknown in unknown_fields(data, message.DESCRIPTOR):
        print(f"warning: {path}: unknown field {unknown} is ignored", file=sys.stderr)
    encode_env_values(data)
    try:
        return ParseDict(data, message, ignore_unknown_fields=True)
    except ParseError as err:
        raise CtlError(f"{path}: {err}") from err


def unknown_fields(data: Any, descriptor: Any, path: str = "") -> list[str]:
    """The paths in ``data`` that the message has no field for. crictl ignores them without a word."""
    if not isinstance(data, dict) or descriptor is None:
        return []
    fields = {name: field for field in descriptor.fields for name in (field.name, field.json_name)}
    found = [f"{path}{name}" for name in data if name not in fields]
    for name, value in data.items():
        field = fields.get(name)
        if field is None or _is_map(field):
            continue
        for item in value if isinstance(value, list) else [value]:
            found += unknown_fields(item, field.message_type, f"{path}{name}.")
    return found


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def encode_env_values(data: dict[str, Any]) -> None:
    """Turn the plain text of ``envs[].value`` into what protobuf's JSON wants for bytes, in place."""
    envs = data.get("envs")
    for env in envs if isinstance(envs, list) else []:
        if isinstance(env, dict) and "value" in env:
            env["value"] = base64.b64encode(str(env["value"]).encode()).decode()


def labels_of(pairs: tuple[str, ...]) -> dict[str, str]:
    """``key=value`` flags as a map. Raises CtlError."""
    labels = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or "=" in value:
            raise CtlError(f"incorrectly specified label: {pair}: key=value is expected")
        labels[key] = value
    return labels
