"""A click group whose commands are imported when they are used, and whose global flags work after them too."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True)
class Section:
    """One heading of ``ctl --help``: command name to (``module:attribute``, one line of help)."""

    title: str
    commands: Mapping[str, tuple[str, str]]


class LazyGroup(click.Group):
    """The group of ``sections``. ``--help`` imports no command; a command imports only itself."""

    def __init__(self, *args: Any, sections: Sequence[Section], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections
        self.table = {name: where for section in sections for name, (where, _) in section.commands.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every name, in the table's order."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command called ``cmd_name`` and give it the global flags. None when there is no such command."""
        if cmd_name not in self.table:
            return None
        module, _, attribute = self.table[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        accept_flags_of(self, command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, but an unknown name is answered in kubectl's words."""
        if args and not args[0].startswith("-") and args[0] not in self.table:
            ctx.fail(f'unknown command "{args[0]}" for "{ctx.command_path}"')
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The sections, without importing anything."""
        width = max(map(len, self.table))
        for section in self.sections:
            with formatter.section(section.title):
                formatter.write_dl([(name.ljust(width), text) for name, (_, text) in section.commands.items()])


def accept_flags_of(group: click.Command, command: click.Command) -> None:
    """Let ``command``, and all below it, take ``group``'s options too (``ctl get pods -n web``).

    An option that the command has itself, under any of its names, stays the command's.
    """
    if command.__dict__.get("_accepts_global_flags"):
        return
    command.__dict__["_accepts_global_flags"] = True
    taken = {name for param in command.params for name in param.opts}
    command.params.extend(
        _echo_of(option, free)
        for option in group.params
        if isinstance(option, click.Option) and (free := [name for name in option.opts if name not in taken])
    )
    for child in getattr(command, "commands", {}).values():
        accept_flags_of(group, child)


def _echo_of(option: click.Option, names: list[str]) -> click.Option:
    """An option of the same ``names`` that overwrites the field of the context object when it is given."""

    def assign(ctx: click.Context, param: click.Parameter, value: object) -> None:
        if value is not None:
            setattr(ctx.obj, str(option.name), value)

    return click.Option(
        [*names, f"global_{option.name}"],
        type=option.type,
        metavar=option.metavar,
        expose_value=False,
        hidden=True,
        callback=assign,
    )
