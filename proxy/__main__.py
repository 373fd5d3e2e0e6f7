"""``python -m proxy``: the node's service proxy as a process."""

import argparse
import socket
import sys
from pathlib import Path

from protos.serving import TLS, add_flags, configure_logging, require_root, run
from proxy.manifests import ManifestError
from proxy.serve import DRAIN_S, serve


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m proxy", description="The service proxy of one node (userspace, layer 4)."
    )
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument("--server", metavar="HOST:PORT", help="the apiserver whose services are served")
    source.add_argument(
        "--services",
        metavar="FILE",
        type=Path,
        help="serve the Service and EndpointSlice manifests of this YAML file instead; read again on change and SIGHUP",
    )
    for flag, what in (
        ("certificate", "PEM file of the certificate shown to the apiserver; without one the connection is plaintext"),
        ("key", "PEM file of its key"),
    ):
        p.add_argument(f"--client-{flag}", metavar="FILE", type=Path, help=what)
    p.add_argument("--certificate-authority", metavar="FILE", type=Path, help="PEM file of the cluster's CA")
    p.add_argument(
        "--node-name", default=socket.gethostname(), help="this node's name, for the Local traffic policies (host name)"
    )
    p.add_argument(
        "--listen",
        metavar="HOST:PORT",
        default="127.0.0.1:10256",
        help="gRPC: health, and ListListeners (%(default)s)",
    )
    p.add_argument(
        "--service-cidr",
        metavar="CIDR",
        default="10.96.0.0/16",
        help="network of cluster IPs, made local to this node; several with commas, empty for none (%(default)s)",
    )
    p.add_argument(
        "--load-balancer-cidr",
        metavar="CIDR",
        default="10.98.0.0/24",
        help="network of load balancer addresses, likewise (%(default)s)",
    )
    p.add_argument(
        "--drain-seconds",
        type=float,
        default=DRAIN_S,
        help="how long connections may go on after SIGTERM (%(default)s)",
    )
    add_flags(p)
    return p


def main() -> None:
    """Parse the command line and serve until SIGTERM."""
    p = parser()
    options = p.parse_args()
    files = (options.client_certificate, options.client_key, options.certificate_authority)
    if any(files) and not all(files):
        p.error("--client-certificate, --client-key and --certificate-authority go together")
    networks = [each for flag in (options.service_cidr, options.load_balancer_cidr) for each in flag.split(",") if each]
    require_root("proxy")
    configure_logging("proxy", options.log_format, options.log_level)
    try:
        run(
            serve(
                listen=options.listen,
                node=options.node_name,
                networks=networks,
                server=options.server or "",
                services=options.services,
                tls=TLS(*files) if all(files) else None,
                drain_s=options.drain_seconds,
            )
        )
    except ManifestError as err:
        sys.exit(f"error: {err}")


if __name__ == "__main__":
    main()
