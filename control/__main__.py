"""``python -m control apiserver|scheduler|controllers|kubelet``: each is its own process and its own room."""

import argparse
import importlib
import sys

from protos.serving import add_flags, configure_logging, run

ROOMS = {
    "apiserver": "the cluster API on an etcd store",
    "scheduler": "assigns pods to nodes",
    "controllers": "makes the cluster what its objects say",
    "kubelet": "runs a node's pods through CRI",
}


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and serve the chosen room until SIGTERM."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m control", description="knarr's control plane and node agent")
    commands = parser.add_subparsers(dest="room", required=True, metavar="ROOM")
    chosen = next((word for word in arguments if word in ROOMS), None)
    for name, summary in ROOMS.items():
        command = commands.add_parser(name, help=summary, description=f"{name}: {summary}")
        if name == chosen:
            module = importlib.import_module(f"control.{name}.main")
            module.add_arguments(command)
            add_flags(command)
    args = parser.parse_args(arguments)
    configure_logging(args.room, args.log_format, args.log_level)
    run(importlib.import_module(f"control.{args.room}.main").serve(args))


if __name__ == "__main__":
    main()
