"""``python -m cri_runtime``: the container runtime of a node."""

import argparse
from pathlib import Path

from cri_runtime.daemon import Config, check_platform, serve
from cri_runtime.teardown import teardown
from protos.serving import add_flags, configure_logging, require_root, run


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(
        prog="python -m cri_runtime",
        description="A container runtime: CRI v1 and knarr's image service on one unix socket.",
    )
    flags.add_argument("--root", type=Path, required=True, metavar="DIR", help="images, containers, records; on disk")
    flags.add_argument("--state", type=Path, required=True, metavar="DIR", help="what need not survive a reboot")
    flags.add_argument(
        "--listen",
        default="unix:///run/knarr/cri.sock",
        metavar="ADDR",
        help="the socket to serve on (default unix:///run/knarr/cri.sock), mode 0600",
    )
    flags.add_argument("--registries", type=Path, metavar="FILE", help="TOML: mirrors, CA and login per registry")
    flags.add_argument("--cni-conf-dir", type=Path, metavar="DIR", help="use CNI plugins, configured here")
    flags.add_argument(
        "--cni-bin-dir", type=Path, default=Path("/opt/cni/bin"), metavar="DIR", help="where CNI plugins are installed"
    )
    flags.add_argument(
        "--pod-cidr", default="10.244.0.0/24", metavar="CIDR", help="pod addresses of this node (10.244.0.0/24)"
    )
    flags.add_argument("--bridge", default="knarr0", metavar="NAME", help="the bridge pods hang on (knarr0)")
    flags.add_argument(
        "--stream-listen",
        default="127.0.0.1:0",
        metavar="ADDR",
        help="where exec, attach and port-forward URLs point (127.0.0.1, any port)",
    )
    flags.add_argument(
        "--teardown",
        action="store_true",
        help="serve nothing: remove bridge, packet filter table and mounts after the pods are gone, and exit",
    )
    add_flags(flags)
    return flags


def main() -> None:
    """Parse the flags and serve until SIGTERM."""
    given = parser().parse_args()
    require_root("cri_runtime")
    check_platform()
    configure_logging("cri_runtime", given.log_format, given.log_level)
    chosen = {name: getattr(given, name) for name in Config.__dataclass_fields__}
    config = Config(**chosen)
    run(teardown(config) if given.teardown else serve(config))


if __name__ == "__main__":
    main()
