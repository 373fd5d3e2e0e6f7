"""``ctl status``: which components run, how they are, since when, and what they weigh."""

import asyncio

import click

from control.api.times import human_duration
from ctl.context import Context, pass_obj
from ctl.errors import Failure
from ctl.lab import processes
from ctl.lab.components import Component, components
from ctl.lab.health import is_healthy
from ctl.lab.layout import Layout
from ctl.lab.settings import read_settings
from ctl.table import render


@click.command()
@pass_obj
def status(context: Context) -> None:
    """Show components, their health, uptime and memory (proportional set size). Exit code 1 unless all are healthy."""
    layout = context.layout
    if not layout.settings.exists():
        click.echo(f"nothing is running ({layout.state_dir}); 'ctl up' starts a cluster")
        raise Failure(1)
    rows = asyncio.run(_rows(layout, components(layout, read_settings(layout))))
    click.echo(render(("COMPONENT", "STATUS", "PID", "UPTIME", "MEMORY", "ADDRESS"), rows), nl=False)
    if any(row[1] != "Healthy" for row in rows):
        raise Failure(1)


async def _rows(layout: Layout, everyone: list[Component]) -> list[tuple[str, ...]]:
    return list(await asyncio.gather(*(_row(layout, component) for component in everyone)))


async def _row(layout: Layout, component: Component) -> tuple[str, ...]:
    process = processes.find(component, layout)
    if process is None:
        return (component.name, "Stopped", "-", "-", "-", component.address)
    health = "Healthy" if await is_healthy(component, layout) else "Unhealthy"
    memory = f"{process.memory_bytes() / (1 << 20):.1f}Mi"
    return (component.name, health, str(process.pid), human_duration(process.uptime_s()), memory, component.address)
