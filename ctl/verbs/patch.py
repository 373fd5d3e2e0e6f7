"""``ctl patch``: change fields of an object."""

from collections.abc import Sequence
from pathlib import Path

import click
import yaml

from control.client import Client
from ctl.command import cluster_command, output
from ctl.context import Context
from ctl.errors import CtlError
from ctl.output import echo_objects, parse_output
from ctl.resources import named, one_object


@cluster_command()
@click.argument("words", nargs=-1, required=True, metavar="TYPE NAME")
@click.option("-p", "--patch", "text", metavar="JSON|YAML", help="The patch.")
@click.option("--patch-file", type=click.Path(path_type=Path), metavar="FILE", help="The file that holds it.")
@click.option("--type", "patch_type", type=click.Choice(["strategic", "merge", "json"]), default="strategic")
@click.option("--subresource", type=click.Choice(["status", "scale"]), help="Patch this part of the object.")
@output()
async def patch(
    context: Context,
    client: Client,
    words: Sequence[str],
    text: str | None,
    patch_file: Path | None,
    patch_type: str,
    subresource: str | None,
    output_format: str,
) -> None:
    """Change fields of an object: ctl patch rc kubia -p '{"spec":{"replicas":2}}'."""
    if (text is None) == (patch_file is None):
        raise CtlError("must specify one of -p and --patch-file")
    kind, name = one_object(words)
    content = _parse(patch_file.read_text() if patch_file else str(text), patch_type)
    namespace = context.current_namespace() if kind.namespaced else ""
    stored = await client.patch(
        kind.message, name, content, namespace=namespace, patch_type=patch_type, subresource=subresource or ""
    )
    if output_format:
        click.echo(echo_objects(parse_output(output_format), [stored], "patched"), nl=False)
    else:
        click.echo(f"{named(kind, name)} patched")


def _parse(text: str, patch_type: str) -> object:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as err:
        raise CtlError(f"unable to parse {text!r}: {' '.join(str(err).split())}") from err
    expected = list if patch_type == "json" else dict
    if not isinstance(content, expected):
        raise CtlError(
            f"a {patch_type} patch is {'a list of operations' if expected is list else 'an object'}, not {text!r}"
        )
    return content
