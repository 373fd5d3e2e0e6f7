"""``python -m cri_runtime.registry``: the OCI registry."""

import argparse
from pathlib import Path

from cri_runtime.images.hosts import load_registries
from cri_runtime.registry.collect import Policy
from cri_runtime.registry.serve import Options, serve
from protos.process import add_flags, configure_logging, run


def main() -> None:
    """Parse the flags and serve until SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m cri_runtime.registry",
        description="An OCI distribution-spec 1.1 registry. SIGUSR1 collects garbage.",
    )
    parser.add_argument(
        "--root", type=Path, required=True, metavar="DIR", help="where blobs and repositories are kept; made if absent"
    )
    parser.add_argument(
        "--listen",
        default="127.0.0.1:5000",
        metavar="ADDR",
        help="host:port to serve on (default 127.0.0.1:5000); port 0 picks a free one",
    )
    _add_options(parser)
    add_flags(parser)
    flags = parser.parse_args()
    configure_logging("registry", flags.log_format, flags.log_level)
    try:
        options = _options(flags)
    except OSError as err:
        parser.error(str(err))
    run(serve(flags.root, flags.listen, options))


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Flags beyond where to serve."""
    add = parser.add_argument
    add("--tls-cert-file", type=Path, metavar="FILE", help="serve TLS with this certificate (PEM, with its chain)")
    add("--tls-private-key-file", type=Path, metavar="FILE", help="its key")
    add("--users", type=Path, metavar="FILE", help="serve only the users of this file, name:hash a line (htpasswd -B)")
    add("--mirror", default="", metavar="URL", help="fetch what is not here from this registry, and keep it")
    add("--registries", type=Path, metavar="FILE", help="login and CA of the mirrored registry (see the runtime's)")
    add(
        "--gc-interval",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="collect garbage so often (default 3600; 0: only on SIGUSR1)",
    )
    add(
        "--gc-grace",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="a push may take so long between a blob and its manifest (default 3600)",
    )
    add("--gc-untagged", action="store_true", help="collect manifests too that no tag leads to")


def _options(flags: argparse.Namespace) -> Options:
    """The flags as a value. Raises OSError for what does not fit together, RegistriesFileError."""
    if (flags.tls_cert_file is None) != (flags.tls_private_key_file is None):
        raise OSError("--tls-cert-file and --tls-private-key-file belong together")
    if flags.mirror and not flags.mirror.startswith(("http://", "https://")):
        raise OSError(f"--mirror {flags.mirror}: give a URL that begins with http:// or https://")
    return Options(
        flags.tls_cert_file,
        flags.tls_private_key_file,
        flags.users,
        flags.mirror,
        load_registries(flags.registries),
        Policy(flags.gc_interval, flags.gc_grace, flags.gc_untagged),
    )


if __name__ == "__main__":
    main()
