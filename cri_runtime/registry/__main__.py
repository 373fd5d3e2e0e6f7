"""``python -m cri_runtime.registry``: the OCI registry."""

import argparse
from pathlib import Path

from cri_runtime.registry.serve import serve
from protos.serving import add_flags, configure_logging, run


def main() -> None:
    """Parse the flags and serve until SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m cri_runtime.registry", description="An OCI distribution-spec 1.1 registry over plain HTTP."
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
    add_flags(parser)
    flags = parser.parse_args()
    configure_logging("registry", flags.log_format, flags.log_level)
    run(serve(flags.root, flags.listen))


if __name__ == "__main__":
    main()
