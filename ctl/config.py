"""The config file: clusters, users and contexts, in the shape of a kubeconfig, credentials as file paths."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctl.context import Context, ContextError

if TYPE_CHECKING:
    from protos.serving import TLS


@dataclass(frozen=True)
class Target:
    """Where an apiserver is and how to talk to it."""

    server: str
    tls: "TLS | None"
    namespace: str = "default"


def render_config(server: str, ca: Path, cert: Path, key: Path, name: str = "knarr") -> dict[str, Any]:
    """The config that ``ctl up`` writes: one cluster, its admin, one context, which is the current one."""
    user = "kubernetes-admin"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority": str(ca)}}],
        "users": [{"name": user, "user": {"client-certificate": str(cert), "client-key": str(key)}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user, "namespace": "default"}}],
        "current-context": name,
    }


def read_target(context: Context) -> Target:
    """See ``Context.target``."""
    path = context.config or context.layout.config
    try:
        config = load(path)
    except FileNotFoundError:
        if context.server and context.config is None:
            return Target(context.server, None, context.namespace or "default")
        raise ContextError(_nothing_there(context, path)) from None
    target = choose(config, context.context_name, path)
    return Target(context.server or target.server, target.tls, context.namespace or target.namespace)


def _nothing_there(context: Context, path: Path) -> str:
    if context.config is not None:
        return f"the config file {path} does not exist"
    flag = "" if context.layout.is_default else f" --state-dir {context.state_dir}"
    return f"no cluster is up: {path} does not exist; start one with 'ctl{flag} up' as root, or name one with --config"


def load(path: Path) -> dict[str, Any]:
    """Read a config file. Raises FileNotFoundError, and ContextError when it is not one or may not be read."""
    import yaml

    try:
        config = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise
    except (OSError, yaml.YAMLError) as err:
        raise ContextError(f"cannot read the config file {path}: {err}") from err
    if not isinstance(config, dict):
        raise ContextError(f"{path} is not a config file: expected a mapping with clusters, users and contexts")
    return config


def choose(config: dict[str, Any], context_name: str | None, path: Path) -> Target:
    """The target of the named (or current) context. Raises ContextError naming what is missing in ``path``."""
    name = context_name or config.get("current-context") or ""
    context = _entry(config, "contexts", "context", name, path)
    cluster = _entry(config, "clusters", "cluster", context.get("cluster", ""), path)
    user = _entry(config, "users", "user", context["user"], path) if context.get("user") else {}
    server = str(cluster.get("server", ""))
    if not server:
        raise ContextError(f'cluster "{context.get("cluster")}" in {path} has no server')
    return Target(server, _tls(cluster, user, path.parent), context.get("namespace") or "default")


def _entry(config: dict[str, Any], section: str, field: str, name: str, path: Path) -> dict[str, Any]:
    entries = [entry for entry in config.get(section) or () if isinstance(entry, dict)]
    for entry in entries:
        if entry.get("name") == name:
            return dict(entry.get(field) or {})
    known = ", ".join(str(entry.get("name")) for entry in entries) or "none"
    raise ContextError(f'{field} "{name}" does not exist in {path}; it has: {known}')


def _tls(cluster: dict[str, Any], user: dict[str, Any], base: Path) -> "TLS | None":
    """Relative paths are relative to the config file, as in a kubeconfig."""
    from protos.serving import TLS

    ca, cert, key = cluster.get("certificate-authority"), user.get("client-certificate"), user.get("client-key")
    if not (ca and cert and key):
        return None
    return TLS(cert=base / cert, key=base / key, ca=base / ca)
