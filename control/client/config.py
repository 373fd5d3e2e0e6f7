"""Where the server is and who we are: a file like a kubeconfig (clusters, users with file paths, contexts)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control.api.codec import yaml_documents
from protos.serving import TLS


class ConfigError(ValueError):
    """The config cannot be used; the message names the file and the entry."""


@dataclass(frozen=True)
class Target:
    """What a context says: address, credentials (None: plaintext) and namespace."""

    server: str
    tls: TLS | None
    namespace: str = "default"


def read_target(path: Path, context: str | None = None) -> Target:
    """The target of ``context``, or of the file's current-context. Raises ConfigError, OSError."""
    documents = yaml_documents(path.read_text())
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise ConfigError(f"{path} is not a config: expected clusters, users and contexts")
    config = documents[0]
    name = context or config.get("current-context")
    if not name:
        raise ConfigError(f"{path} has no current-context: name one with --context")
    chosen = _entry(path, config, "contexts", "context", name)
    cluster = _entry(path, config, "clusters", "cluster", chosen.get("cluster"))
    user = _entry(path, config, "users", "user", chosen["user"]) if chosen.get("user") else {}
    return Target(_server(path, cluster), _tls(path, cluster, user), chosen.get("namespace") or "default")


def _entry(path: Path, config: dict[str, Any], section: str, member: str, name: Any) -> dict[str, Any]:
    for entry in config.get(section) or []:
        if entry.get("name") == name:
            return entry.get(member) or {}
    raise ConfigError(f"{path}: {section} has no entry named {name!r}")


def _server(path: Path, cluster: dict[str, Any]) -> str:
    if not cluster.get("server"):
        raise ConfigError(f"{path}: the cluster has no server")
    return str(cluster["server"])


def _tls(path: Path, cluster: dict[str, Any], user: dict[str, Any]) -> TLS | None:
    members = (user.get("client-certificate"), user.get("client-key"), cluster.get("certificate-authority"))
    if not any(members):
        return None
    if not all(members):
        raise ConfigError(f"{path}: mutual TLS needs client-certificate, client-key and certificate-authority")
    cert, key, ca = (path.parent / str(member) for member in members)
    return TLS(cert=cert, key=key, ca=ca)
