"""``ctl down``: stop the cluster of the state directory and leave nothing of it but that directory."""

import asyncio
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass

import click

from ctl.context import Context, pass_obj
from ctl.lab import processes, sweep
from ctl.lab.components import Component, components, runtime
from ctl.lab.converge import STOP_GRACE_S, Say, converge
from ctl.lab.errors import Leftovers, NotRoot
from ctl.lab.layout import Layout
from ctl.lab.lock import exclusive
from ctl.lab.settings import Settings, read_settings

STOP_ORDER = ("kubelet", "controllers", "scheduler", "proxy", "apiserver", "store", "registry")
"""The kubelet first, so that nobody starts again what is removed; the runtime goes last, it has the pods to remove."""

TEARDOWN_DEADLINE_S = 60.0


@click.command()
@click.option("--purge", is_flag=True, help="Remove the state directory too: objects, images, certificates, logs.")
@pass_obj
def down(context: Context, purge: bool) -> None:
    """Stop the cluster and remove what it left in the kernel: pods, network, mounts, cgroups, sockets.

    The state directory stays, so that the next 'ctl up' finds every object and image again; --purge removes it.
    """
    layout = context.layout
    stopped = False
    if layout.settings.exists():
        if os.geteuid() != 0:
            raise NotRoot("ctl down")
        with exclusive(layout):
            stopped = bring_down(layout, click.echo)
    if purge and layout.state_dir.exists():
        purge_state(layout)
        click.echo(f"removed {layout.state_dir}")
    elif not stopped:
        click.echo(f"nothing is running ({layout.state_dir})")
    else:
        click.echo(f"down; the state stays in {layout.state_dir}")


@dataclass(frozen=True)
class _Running:
    component: Component
    process: processes.Process


def bring_down(layout: Layout, say: Say) -> bool:
    """Stop everything of ``layout``. Returns whether there was anything. Raises Leftovers, LabError."""
    settings = read_settings(layout)
    running = [
        _Running(component, process)
        for component in components(layout, settings)
        if (process := processes.find(component, layout))
    ]
    if not running and not layout.run.exists() and not any(sweep.leftovers(layout, settings)):
        return False
    asyncio.run(_stop_all(layout, settings, running, say))
    _sweep(layout, settings)
    return True


def _sweep(layout: Layout, settings: Settings) -> None:
    """Take away what has no owner any more, and see that nothing is left. Raises Leftovers."""
    sweep.remove_routes(settings)
    sweep.remove_pod_cgroups()
    if layout.run.exists() and not sweep.mounts_below(layout):
        shutil.rmtree(layout.run)
    if left := list(sweep.leftovers(layout, settings)):
        raise Leftovers(left)


async def _stop_all(layout: Layout, settings: Settings, running: list[_Running], say: Say) -> None:
    by_name = {each.component.name: each for each in running}
    for name in STOP_ORDER:
        if name in by_name:
            await _stop(by_name[name], say)
    await _remove_pods(layout, settings, say)
    node_runtime = processes.find(runtime(layout, settings), layout)
    if node_runtime is not None:
        await _stop(_Running(runtime(layout, settings), node_runtime), say)
    await _teardown(layout, settings, say)


async def _stop(each: _Running, say: Say) -> None:
    drained = await processes.stop(each.process, STOP_GRACE_S)
    say(f"stopped {each.component.name}" + ("" if drained else " (it did not end by itself and was killed)"))


async def _remove_pods(layout: Layout, settings: Settings, say: Say) -> None:
    """Stop and remove every sandbox. A runtime that was killed is started once more to do it."""
    node_runtime = runtime(layout, settings)
    if not (layout.run / "cri").exists():
        return
    await converge(layout, [node_runtime], lambda line: None)
    from protos.cri import runtime_pb2 as cri
    from protos.cri import runtime_pb2_grpc
    from protos.serving import open_channel

    async with open_channel(layout.runtime_endpoint) as channel:
        stub = runtime_pb2_grpc.RuntimeServiceStub(channel)
        sandboxes = (await stub.ListPodSandbox(cri.ListPodSandboxRequest())).items
        async with asyncio.TaskGroup() as tasks:
            for sandbox in sandboxes:
                tasks.create_task(_remove_sandbox(stub, sandbox.id))
    if sandboxes:
        say(f"removed {len(sandboxes)} pod{'s' if len(sandboxes) > 1 else ''}")


async def _remove_sandbox(stub: object, sandbox_id: str) -> None:
    from protos.cri import runtime_pb2 as cri

    request = {"pod_sandbox_id": sandbox_id}
    await stub.StopPodSandbox(cri.StopPodSandboxRequest(**request), timeout=TEARDOWN_DEADLINE_S)  # type: ignore[attr-defined]
    await stub.RemovePodSandbox(cri.RemovePodSandboxRequest(**request), timeout=TEARDOWN_DEADLINE_S)  # type: ignore[attr-defined]


async def _teardown(layout: Layout, settings: Settings, say: Say) -> None:
    """The runtime's own cleaning, after its pods are gone: bridge, packet filter, cgroups, mounts."""
    argv = [*runtime(layout, settings).argv, "--teardown"]
    with layout.log("cri_runtime").open("ab") as log:
        cleaner = await asyncio.create_subprocess_exec(*argv, stdout=log, stderr=log, cwd="/")
        try:
            async with asyncio.timeout(TEARDOWN_DEADLINE_S):
                code = await cleaner.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                cleaner.kill()
            code = await cleaner.wait()
    if code:
        say(f"the node runtime could not remove everything (exit code {code}): see {layout.log('cri_runtime')}")


def purge_state(layout: Layout) -> None:
    """Remove the state directory. Raises Leftovers when something is still mounted in it: nothing is removed then."""
    if points := sweep.mounts_below(layout):
        raise Leftovers([f"mount {point}" for point in points])
    for path in (layout.run, layout.state_dir):
        if path.exists():
            shutil.rmtree(path)
