"""The config file: clusters, users and contexts in the shape of a kubeconfig, credentials as file paths."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctl.errors import CtlError

if TYPE_CHECKING:
    from control.client.config import Target
    from ctl.context import Context


class NoCluster(CtlError):
    """A command cannot know what to talk to; the text says what to do."""


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


def target_of(context: "Context") -> "Target":
    """See ``Context.target``."""
    from control.api.codec import DecodeError
    from control.client.config import ConfigError, Target, read_target

    path = context.config or context.layout.config
    try:
        target = read_target(path, context.context_name)
    except FileNotFoundError:
        if not context.server or context.config is not None:
            raise NoCluster(_nothing_there(context, path)) from None
        target = Target(context.server, None)
    except PermissionError as err:
        raise NoCluster(f"you may not read the config {path}: use sudo, or name your own with --config") from err
    except (ConfigError, DecodeError, OSError) as err:
        raise NoCluster(f"the config {path} cannot be used: {err}") from err
    return replace(
        target,
        server=(context.server or target.server).removeprefix("https://"),
        namespace=context.namespace or target.namespace,
    )


def _nothing_there(context: "Context", path: Path) -> str:
    if context.config is not None:
        return f"the config file {path} does not exist"
    flag = "" if context.layout.is_default else f" --state-dir {context.state_dir}"
    return f"no cluster is up: {path} does not exist; start one with 'ctl{flag} up' as root, or name one with --config"
