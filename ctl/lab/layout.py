"""Where everything of a single-node cluster lives. Pure: paths are computed, nothing is touched.

X/config         contexts, as in a kubeconfig          X/store/     the store's log and database
X/up.json        names, networks and ports chosen      X/cri/       images and container records
X/registries.toml  registries of the node runtime      X/registry/  the local registry's images
X/pki/           CA, certificates, keys                X/kubelet/   pods' volumes and logs
X/logs/          one file per component                X/run/       sockets, pid files, mounts
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protos.serving import TLS

DEFAULT_STATE_DIR = Path("/var/lib/knarr")
DEFAULT_RUN_DIR = Path("/run/knarr")


@dataclass(frozen=True)
class Layout:
    """Paths below one state directory."""

    state_dir: Path

    @property
    def is_default(self) -> bool:
        """Whether this is the cluster one gets without ``--state-dir``."""
        return self.state_dir == DEFAULT_STATE_DIR

    @property
    def run(self) -> Path:
        """What does not outlive a boot. The default cluster's is /run/knarr, any other's lies in its own."""
        return DEFAULT_RUN_DIR if self.is_default else self.state_dir / "run"

    @property
    def config(self) -> Path:
        """The admin's contexts."""
        return self.state_dir / "config"

    @property
    def kubeconfig(self) -> Path:
        """The same for kubectl, which speaks to the REST gateway."""
        return self.state_dir / "kubeconfig"

    @property
    def settings(self) -> Path:
        """What ``ctl up`` chose and keeps."""
        return self.state_dir / "up.json"

    @property
    def lock(self) -> Path:
        """Held by the command that changes the cluster."""
        return self.state_dir / "lock"

    @property
    def registries(self) -> Path:
        """How the node runtime reaches registries."""
        return self.state_dir / "registries.toml"

    @property
    def pki(self) -> Path:
        """The CA, and one certificate and key per component."""
        return self.state_dir / "pki"

    @property
    def logs(self) -> Path:
        """Logs of components (pods' logs are the kubelet's)."""
        return self.state_dir / "logs"

    def log(self, component: str) -> Path:
        """The log of one component."""
        return self.logs / f"{component}.log"

    def pid_file(self, component: str) -> Path:
        """Who runs as ``component``."""
        return self.run / f"{component}.pid"

    @property
    def runtime_socket(self) -> Path:
        """The CRI socket."""
        return self.run / "cri.sock"

    @property
    def runtime_endpoint(self) -> str:
        """The CRI socket as a URL."""
        return f"unix://{self.runtime_socket}"

    def tls(self, name: str) -> "TLS":
        """The files of the component or user ``name``."""
        from protos.serving import TLS

        return TLS(cert=self.pki / f"{name}.crt", key=self.pki / f"{name}.key", ca=self.pki / "ca.crt")

    def admin_tls(self) -> "TLS":
        """The admin's files."""
        return self.tls("admin")
