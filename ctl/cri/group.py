"""The ``cri`` group, which the modules of commands add themselves to."""

import click


@click.group()
def cri() -> None:
    """Look at the node runtime, and drive it by hand: crictl's commands, on any CRI socket."""
