"""``ctl completion``: the script that makes a shell complete ctl's commands and flags."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script: source <(ctl completion bash)."""
    complete = get_completion_class(shell)
    assert complete is not None  # the three shells that click knows
    click.echo(complete(ctx.find_root().command, {}, "ctl", "_CTL_COMPLETE").source())
