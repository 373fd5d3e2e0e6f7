"""What the global flags come to: which server, which namespace, which runtime, which store."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from control.client import Client
    from control.client.config import Target
    from ctl.lab.layout import Layout
    from protos.serving import TLS

DEFAULT_STATE_DIR = Path("/var/lib/knarr")


@dataclass
class Context:
    """The object that every command gets as ``ctx.obj``.

    The fields are the global flags as given; the methods work out what a command needs and import what that takes.
    """

    config: Path | None = None
    context_name: str | None = None
    server: str | None = None
    namespace: str | None = None
    state_dir: Path = DEFAULT_STATE_DIR
    runtime_flag: str | None = None
    endpoints: str | None = None

    @property
    def layout(self) -> "Layout":
        """Paths of the state directory."""
        from ctl.lab.layout import Layout

        return Layout(self.state_dir)

    def target(self) -> "Target":
        """Server, credentials and namespace, from the flags and the config file.

        Raises ``ctl.config.NoCluster`` when there is neither a config nor ``--server``, or it lacks the context.
        """
        from ctl.config import target_of

        return target_of(self)

    def client(self) -> "Client":
        """A client of the apiserver; use it with ``async with``. Raises NoCluster as ``target``."""
        from control.client import Client

        target = self.target()
        return Client(target.server, tls=target.tls)

    def current_namespace(self) -> str:
        """The namespace that a command without ``-A`` means."""
        return self.namespace or self.target().namespace

    @property
    def runtime_endpoint(self) -> str:
        """The CRI endpoint: the flag, or the socket of the state directory."""
        return self.runtime_flag or self.layout.runtime_endpoint

    def ensure_runtime(self) -> str:
        """The CRI endpoint, served: starts the state directory's node runtime when its socket is not answered.

        An endpoint given by flag is never started. Raises ``ctl.lab.errors.LabError`` when it does not come up.
        """
        if self.runtime_flag:
            return self.runtime_flag
        from ctl.lab.runtime import ensure_runtime

        return ensure_runtime(self.layout)

    def store(self) -> tuple[list[str], "TLS | None"]:
        """The store's client URLs and the credentials for them."""
        if self.endpoints:
            urls = self.endpoints.split(",")
            tls = self.layout.admin_tls() if any(url.startswith("https://") for url in urls) else None
            return urls, tls
        from ctl.lab.settings import read_settings

        return [f"https://{read_settings(self.layout).store_client}"], self.layout.admin_tls()


def pass_obj(function: Any) -> Any:
    """click's ``pass_obj``, typed loosely so that commands can name ``Context``."""
    import click

    return click.pass_obj(function)
