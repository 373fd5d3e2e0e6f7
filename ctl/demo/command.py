"""The command: finds a place for the demo's cluster, tells the story, and cleans up whatever happens."""

import os
import subprocess
import sys
import time
from pathlib import Path

import click

from ctl.context import DEFAULT_STATE_DIR, Context, pass_obj
from ctl.demo import traces
from ctl.demo.stage import Stage, StepFailed
from ctl.demo.steps import Step, story
from ctl.errors import CtlError, Failure
from ctl.lab.components import components
from ctl.lab.errors import AddressTaken, NotRoot
from ctl.lab.layout import Layout
from ctl.lab.ports import check_ports
from ctl.lab.settings import Settings, node_address

DEMO_STATE_DIR = Path("/var/lib/knarr-demo")
OFFSETS = range(0, 10000, 1000)


@click.command()
@click.option("--port-offset", type=int, metavar="N", help="Add N to every port; default the first N that is free.")
@click.option("--strict", is_flag=True, help="Nobody else uses this machine: whatever is new at the end is a leak.")
@click.option("--keep", is_flag=True, help="Keep the state directory (images, logs) afterwards.")
@pass_obj
def demo(context: Context, port_offset: int | None, strict: bool, keep: bool) -> None:
    """Tell the whole story, from a Dockerfile to a load-balanced, self-healing service, and check each step.

    The demo has a cluster of its own, in a state directory of its own (/var/lib/knarr-demo, or --state-dir), which it
    removes at the end. A cluster that is up already is left alone. Exit code 1 names the step that failed.
    """
    if os.geteuid() != 0:
        raise NotRoot("ctl demo")
    state_dir = DEMO_STATE_DIR if context.state_dir == DEFAULT_STATE_DIR else context.state_dir.absolute()
    stage = Stage(state_dir, free_offset(state_dir) if port_offset is None else port_offset, strict)
    _make_room(stage)
    click.echo(f"# The demo's cluster lives in {state_dir} and is removed at the end.")
    if stage.port_offset:
        click.echo(
            f"# Another cluster, or somebody else, has the usual ports: the demo's are shifted by {stage.port_offset}."
        )
    click.echo(f"$ export KNARR_STATE_DIR={state_dir}")
    try:
        _tell(stage)
    finally:
        _clean_up(stage, keep)


def free_offset(state_dir: Path) -> int:
    """The first offset with which every port is free. Raises AddressTaken when none is."""
    failure: AddressTaken | None = None
    for offset in OFFSETS:
        try:
            check_ports(components(Layout(state_dir), Settings("demo", node_address(), offset)))
            return offset
        except AddressTaken as err:
            failure = failure or err
    assert failure is not None
    raise failure


def _make_room(stage: Stage) -> None:
    """A demo that was killed may have left its directory, with its cluster in it. Anything else there is not ours."""
    if not stage.state_dir.exists() or not any(stage.state_dir.iterdir()):
        return
    if not (stage.state_dir / "demo").exists():
        raise CtlError(f"{stage.state_dir} is in use and not a demo's: name an empty directory with --state-dir")
    click.echo(f"# An earlier demo was interrupted: removing what it left in {stage.state_dir}.")
    _down(stage)


def _tell(stage: Stage) -> None:
    before = traces.take(stage.state_dir)
    stage.state_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    (stage.state_dir / "demo").touch()
    steps = story(before)
    began = time.monotonic()
    for number, step in enumerate(steps, 1):
        _act(stage, number, len(steps), step)
    click.echo(f"\nAll {len(steps)} steps passed in {time.monotonic() - began:.0f} s.")


def _act(stage: Stage, number: int, total: int, step: Step) -> None:
    click.echo(f"\n=== Step {number} of {total}: {step.title} ===")
    began = time.monotonic()
    try:
        step.act(stage)
    except (StepFailed, OSError, subprocess.TimeoutExpired, LookupError, ValueError, CtlError) as err:
        click.echo(f"\nFAILED: step {number} of {total} ({step.title}): {err}", err=True)
        click.echo(f"The components' logs are in {stage.layout.logs} until the demo has cleaned up.", err=True)
        _show_scene(stage)
        raise Failure(1) from err
    click.echo(f"# step {number} ok ({time.monotonic() - began:.1f} s)")


def _show_scene(stage: Stage) -> None:
    """Pods, events and the last lines of each log: they are about to be removed."""
    for words in (("get", "pods", "-o", "wide"), ("events",)):
        done = subprocess.run(stage.argv(*words), env=stage.environment, capture_output=True, text=True, check=False)
        click.echo("\n".join(["--- ctl " + " ".join(words), *done.stdout.splitlines()[-20:]]), err=True)
    for path in sorted(stage.layout.logs.glob("*.log")) if stage.layout.logs.is_dir() else ():
        lines = path.read_text(errors="replace").splitlines()[-8:]
        click.echo(f"--- {path.name}", err=True)
        for line in lines:
            click.echo(f"  {line[:300]}", err=True)


def _clean_up(stage: Stage, keep: bool) -> None:
    if not keep:
        _down(stage)
    else:
        subprocess.run(stage.argv("down"), env=stage.environment, stdout=subprocess.DEVNULL, check=False)
        click.echo(f"# kept: {stage.state_dir}")


def _down(stage: Stage) -> None:
    """Take the demo's cluster down and remove its directory; Ctrl-C may not interrupt this halfway."""
    done = subprocess.run(
        stage.argv("down", "--purge"),
        env=stage.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        check=False,
    )
    if done.returncode:
        print(done.stderr, end="", file=sys.stderr)
