"""``python -m control controllers``: one leader runs all controllers."""

import argparse
import asyncio
import logging
import socket

from control.client import Client, LeaderElector
from control.client.flags import add_client_flags, client_tls
from control.controllers.controller import Controller, Environment
from control.controllers.deployment import DeploymentController
from control.controllers.endpoints import EndpointsController
from control.controllers.endpointslices import EndpointSliceController
from control.controllers.garbage import GarbageCollector
from control.controllers.node import EVICTION_TIMEOUT_S, GRACE_S, NodeController
from control.controllers.podgc import PodGCController
from control.controllers.replication import ReplicaSets, ReplicationControllers
from control.controllers.servicelb import ServiceLBController
from protos.serving import new_server, running

log = logging.getLogger(__name__)

LEASE = "kube-controller-manager"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``controllers``."""
    add_client_flags(parser)
    parser.add_argument("--listen", default="127.0.0.1:10257", help="address of the gRPC health service (plaintext)")
    parser.add_argument(
        "--load-balancer-cidr", default="10.98.0.0/24", help="range that LoadBalancer services get addresses from"
    )
    parser.add_argument(
        "--node-monitor-grace-period", type=float, default=GRACE_S, help="seconds until a silent node is NotReady"
    )
    parser.add_argument(
        "--pod-eviction-timeout",
        type=float,
        default=EVICTION_TIMEOUT_S,
        help="pods of a NotReady node that do not say otherwise are deleted after this many seconds",
    )


def controllers(env: Environment, args: argparse.Namespace) -> list[Controller]:
    """Every controller, by the order of a request's life."""
    return [
        ReplicationControllers(env),
        ReplicaSets(env),
        DeploymentController(env),
        EndpointsController(env),
        EndpointSliceController(env),
        ServiceLBController(env, args.load_balancer_cidr),
        NodeController(env, args.node_monitor_grace_period, args.pod_eviction_timeout),
        PodGCController(env),
        GarbageCollector(env),
    ]


async def serve(args: argparse.Namespace) -> None:
    """Campaign for leadership and, while leading, run every controller. Until cancelled.

    The identity is this host and listen address: a controller manager that was killed takes its own lease up again at
    once.
    """
    async with Client(args.server, client_tls(args), field_manager="kube-controller-manager") as client:
        elector = LeaderElector(client, LEASE, identity=f"{socket.gethostname()}_{args.listen}")
        async with running(new_server(), insecure=[args.listen], listen=[]):
            await elector.run(lambda: run_all(client, args))


async def run_all(client: Client, args: argparse.Namespace) -> None:
    """Run every controller until cancelled."""
    env = Environment(client)
    every = controllers(env, args)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(env.run(), name="informers")
        for controller in every:
            tasks.create_task(controller.run(), name=controller.name)
