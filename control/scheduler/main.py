"""``python -m control scheduler``: one leader places pods."""

import argparse
import socket

from control.client import Client, LeaderElector
from control.client.flags import add_client_flags, client_tls
from control.scheduler.scheduler import NAME, Scheduler
from protos.serving import new_server, running

LEASE = "kube-scheduler"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``scheduler``."""
    add_client_flags(parser)
    parser.add_argument("--listen", default="127.0.0.1:10259", help="address of the gRPC health service (plaintext)")
    parser.add_argument("--scheduler-name", default=NAME, help="place pods whose spec.schedulerName is this")


async def serve(args: argparse.Namespace) -> None:
    """Campaign for leadership and, while leading, schedule. Until cancelled.

    The identity is this host and listen address: a scheduler that was killed takes its own lease up again at once.
    """
    async with (
        Client(args.server, client_tls(args), field_manager="kube-scheduler") as client,
        running(new_server(), listen=[], insecure=[args.listen]),
    ):
        await elect(client, args)


async def elect(client: Client, args: argparse.Namespace) -> None:
    """Schedule whenever this process leads."""
    elector = LeaderElector(client, LEASE, identity=f"{socket.gethostname()}_{args.listen}")
    await elector.run(lambda: Scheduler(client, args.scheduler_name).run())
