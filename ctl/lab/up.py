"""``ctl up``: make the cluster of the state directory run; start what is missing of it."""

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ctl.config import render_config
from ctl.context import Context, pass_obj
from ctl.lab.components import components
from ctl.lab.converge import HEALTH_DEADLINE_S, Say, converge, missing, prepare
from ctl.lab.errors import LabError, NotRoot, NotWritable
from ctl.lab.layout import Layout
from ctl.lab.lock import exclusive
from ctl.lab.pki import ensure_pki
from ctl.lab.ports import check_ports
from ctl.lab.processes import log_tail
from ctl.lab.settings import Settings, settle

if TYPE_CHECKING:
    from control.client import Client


@click.command()
@click.option("--port-offset", type=int, metavar="N", help="Add N to every port, for a second cluster on this machine.")
@click.option("--network", type=int, metavar="N", help="Use the Nth set of address ranges; default the first free one.")
@click.option("--node-name", metavar="NAME", help="Name of the node; default this host's.")
@click.option("--rest/--no-rest", default=None, help="Also serve Kubernetes' HTTP API, for kubectl (default not).")
@pass_obj
def up(context: Context, **asked: object) -> None:
    """Start the cluster of the state directory, or what is missing of it, and wait until it is healthy.

    Running it again is safe: it starts only what does not run. Choices made by flags are kept for the next time.
    """
    began = time.monotonic()
    layout = context.layout
    if os.geteuid() != 0:
        raise NotRoot("ctl up")
    settle(layout, **asked)  # wrong flags are told before anything is made
    with exclusive(layout):
        settings = settle(layout, **asked)
        changed = bring_up(layout, settings, click.echo)
    if not changed:
        click.echo(f"already up ({layout.state_dir})")
        return
    click.echo(f"up in {time.monotonic() - began:.1f} s; node {settings.node_name} is Ready")
    click.echo(f"logs   {layout.logs}/COMPONENT.log")
    click.echo(f"config {layout.config} (ctl finds it by itself)")
    if settings.rest:
        click.echo(f"kubectl --kubeconfig={layout.kubeconfig} get pods")


def bring_up(layout: Layout, settings: Settings, say: Say) -> bool:
    """Converge; False when everything was up already. Raises LabError, and then leaves what was there as it was."""
    wanted = components(layout, settings)
    absent = missing(layout, wanted)
    check_ports(absent)
    try:
        prepare(layout, settings)
        ensure_pki(layout.pki, settings)
        asyncio.run(_converge(layout, settings, say))
        write_configs(layout, settings)
    except* LabError as group:
        raise LabError("; ".join(str(err) for err in group.exceptions)) from group
    except* OSError as group:
        cause = group.exceptions[0]
        assert isinstance(cause, OSError)
        raise NotWritable(layout.state_dir, cause) from group
    return bool(absent)


def write_configs(layout: Layout, settings: Settings) -> None:
    """The admin's config, written once the cluster is up: before, there is nothing that it could lead to.

    And the one for kubectl, when there is something that speaks with it.
    """
    _write_config(layout, layout.config, settings.address("apiserver"))
    if settings.rest:
        _write_config(layout, layout.kubeconfig, f"https://{settings.address('rest')}")
    else:
        layout.kubeconfig.unlink(missing_ok=True)


def _write_config(layout: Layout, path: Path, server: str) -> None:
    import yaml

    tls = layout.admin_tls()
    fresh = path.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text(yaml.safe_dump(render_config(server, tls.ca, tls.cert, tls.key), sort_keys=False))
    fresh.replace(path)


async def _converge(layout: Layout, settings: Settings, say: Say) -> None:
    began = int(time.time())

    async def node_is_ready(started: Sequence[str]) -> None:
        await wait_for_node(layout, settings, since_s=began if "kubelet" in started else 0)

    await converge(layout, components(layout, settings), say, node_is_ready)


async def wait_for_node(layout: Layout, settings: Settings, since_s: int) -> None:
    """Return when the node of ``settings`` says that it is Ready, and has said so after ``since_s``.

    Raises LabError after the deadline.
    """
    from control.client import Client, errors

    async with Client(settings.address("apiserver"), tls=layout.admin_tls()) as client:
        try:
            async with asyncio.timeout(HEALTH_DEADLINE_S):
                while not await _turns_ready(client, settings.node_name, since_s):
                    pass
        except (TimeoutError, errors.ApiError) as err:
            why = f": {err}" if str(err) else f" after {HEALTH_DEADLINE_S:.0f} s"
            tail = "".join(f"\n  | {line}" for line in log_tail(layout.log("kubelet")))
            raise LabError(
                f"node {settings.node_name} is not Ready{why}; {layout.log('kubelet')} ends so:{tail}"
            ) from err


async def _turns_ready(client: "Client", node: str, since_s: int) -> bool:
    """Watch the node until it is Ready; False when the server ends the watch before."""
    from protos.k8s import core_v1_pb2 as core

    async with aclosing(client.watch(core.Node, field_selector=f"metadata.name={node}")) as events:
        async for event in events:
            if event.type in ("ADDED", "MODIFIED") and _is_ready(event.object, since_s):
                return True
    return False


def _is_ready(node: Any, since_s: int) -> bool:
    return any(
        condition.type == "Ready" and condition.status == "True" and condition.lastHeartbeatTime.seconds >= since_s
        for condition in node.status.conditions
    )
