"""``ctl explain``: the fields of a kind, from the table of JSON facts that also reads and writes its manifests."""

from collections.abc import Iterator, Sequence

import click

from control.api.codec import class_of
from control.api.fields import Field, Fields, fields_of
from ctl.errors import CtlError
from ctl.resources import kind_named

SCALARS = {"bool": "boolean", "int32": "integer", "int64": "integer", "double": "number"}
SPECIALS = {"quantity": "Quantity", "intorstring": "IntOrString", "rawextension": "Object", "fieldsv1": "FieldsV1"}


@click.command()
@click.argument("path", metavar="TYPE[.FIELD...]")
@click.option("--recursive", is_flag=True, help="The fields of the fields too.")
def explain(path: str, recursive: bool) -> None:
    """Show the fields of a kind: 'ctl explain pod', 'ctl explain pod.spec.containers'."""
    word, *steps = path.split(".")
    kind = kind_named(word)
    facts: Fields | None = fields_of(kind.message.DESCRIPTOR)
    type_ = "Object"
    for at, step in enumerate(steps):
        field = _find(facts, step, ".".join([word, *steps[:at]]))
        facts, type_ = _below(field), _type(field)
    if kind.group:
        click.echo(f"GROUP:      {kind.group}")
    click.echo(f"KIND:       {kind.kind}\nVERSION:    {kind.version}\n")
    if steps:
        click.echo(f"FIELD: {steps[-1]} <{type_}>\n")
    if facts is not None:
        click.echo("FIELDS:")
        if not steps:
            click.echo("  apiVersion\t<string>\n  kind\t<string>")
        click.echo("\n".join(_lines(facts, recursive, 1, ())))


def _find(facts: Fields | None, name: str, where: str) -> Field:
    known = facts.members if facts is not None else {}
    if name not in known:
        raise CtlError(f'field "{name}" does not exist in {where}; it has: {", ".join(sorted(known)) or "no fields"}')
    return known[name][1]


def _below(field: Field) -> Fields | None:
    """The fields of the field's message; None for a plain value."""
    if field.scalar:
        return None
    facts = fields_of(class_of(field.message).DESCRIPTOR)
    return facts if facts.members and not facts.special else None


def _type(field: Field) -> str:
    if field.scalar:
        name = SCALARS.get(field.scalar, "string")
    else:
        special = fields_of(class_of(field.message).DESCRIPTOR).special
        name = SPECIALS.get(special, "string") if special else field.message.rpartition(".")[2]
    if field.map:
        return f"map[string]{name}"
    return f"[]{name}" if field.repeated else name


def _lines(facts: Fields, recursive: bool, depth: int, above: Sequence[str]) -> Iterator[str]:
    for name, (_, field) in sorted(facts.members.items()):
        yield f"{'  ' * depth}{name}\t<{_type(field)}>"
        below = _below(field) if recursive and field.message not in above else None
        if below is not None:
            yield from _lines(below, recursive, depth + 1, (*above, field.message))
