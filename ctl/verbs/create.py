"""``ctl create``: store new objects, from a file or from a few flags."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from control.client import Client
from ctl.command import cluster_command, dry_run, filenames, output
from ctl.context import Context
from ctl.errors import CtlError
from ctl.generators import parse_pairs
from ctl.manifests import place, read_objects
from ctl.output import dry_run_note, echo_objects, parse_output
from protos.k8s import core_v1_pb2 as core


async def create_objects(
    context: Context, client: Client, objects: Sequence[Any], mode: str, output_format: str = ""
) -> None:
    """Create each and say so; the first that fails ends it."""
    parsed = parse_output(output_format)
    namespace, explicit = context.current_namespace(), context.namespace is not None
    made = []
    for obj in objects:
        place(obj, namespace, explicit)
        stored = obj if mode == "client" else await client.create(obj, dry_run=mode == "server")
        made.append(stored)
        if not parsed.form:
            click.echo(echo_objects(parsed, [stored], "created", dry_run_note(mode)), nl=False)
    if parsed.form:
        click.echo(echo_objects(parsed, made, "created"), nl=False)


@cluster_command()
@click.argument("words", nargs=-1, metavar="[KIND NAME]")
@filenames
@dry_run
@output()
@click.option("--from-literal", multiple=True, metavar="KEY=VALUE", help="For configmap and secret: one entry.")
@click.option("--from-file", multiple=True, metavar="[KEY=]FILE", help="For configmap and secret: a file's content.")
async def create(
    context: Context,
    client: Client,
    words: Sequence[str],
    files: Sequence[str],
    dry_run: str,
    output_format: str,
    from_literal: Sequence[str],
    from_file: Sequence[str],
) -> None:
    """Create objects: 'ctl create -f FILE', 'ctl create namespace NAME', 'ctl create configmap NAME --from-...',
    'ctl create secret generic NAME --from-...', 'ctl create serviceaccount NAME'."""
    if bool(words) == bool(files):
        raise CtlError("must specify one of -f and KIND NAME")
    objects = read_objects(files) if files else [_from_flags(words, _entries(from_literal, from_file))]
    await create_objects(context, client, objects, dry_run, output_format)


def _from_flags(words: Sequence[str], entries: dict[str, bytes]) -> Any:
    match words:
        case ("namespace" | "ns", name):
            made: Any = core.Namespace()
        case ("serviceaccount" | "sa", name):
            made = core.ServiceAccount()
        case ("configmap" | "cm", name):
            made = _config_map(entries)
        case ("secret", "generic", name):
            made = core.Secret(type="Opaque", data=entries)
        case _:
            raise CtlError(
                f"cannot create {' '.join(words)!r} from flags: namespace, serviceaccount, configmap and "
                "'secret generic' can be, anything else needs -f"
            )
    made.metadata.name = name
    return made


def _config_map(entries: dict[str, bytes]) -> core.ConfigMap:
    made = core.ConfigMap()
    for key, value in entries.items():
        try:
            made.data[key] = value.decode()
        except UnicodeDecodeError:
            made.binaryData[key] = value
    return made


def _entries(literals: Sequence[str], files: Sequence[str]) -> dict[str, bytes]:
    entries = {key: value.encode() for text in literals for key, value in parse_pairs([text], "--from-literal").items()}
    for text in files:
        key, equals, path = text.rpartition("=")
        where = Path(path)
        try:
            entries[key if equals else where.name] = where.read_bytes()
        except OSError as err:
            raise CtlError(f"cannot read {where}: {err.strerror}") from err
    return entries
