"""``ctl edit``: an object in the user's editor, and what changed sent as a patch."""

import os
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from control.api.codec import DecodeError, from_json, yaml_documents
from control.client import Client
from ctl.command import cluster_command
from ctl.context import Context
from ctl.errors import CtlError
from ctl.output import neat, to_yaml
from ctl.resources import named, one_object

HEADER = """# Please edit the object below. Lines beginning with a '#' will be ignored,
# and an empty file will abort the edit. If an error occurs while saving this file will be
# reopened with the relevant failures.
#
"""


@cluster_command()
@click.argument("words", nargs=-1, required=True, metavar="TYPE NAME")
async def edit(context: Context, client: Client, words: Sequence[str]) -> None:
    """Edit an object in $KUBE_EDITOR, $EDITOR or vi."""
    kind, name = one_object(words)
    namespace = context.current_namespace() if kind.namespaced else ""
    before = neat(await client.get(kind.message, name, namespace=namespace))
    after = _edited(before, kind.message)
    if after is None or after == before:
        click.echo("Edit cancelled, no changes made." if after else "Edit cancelled, saved file was empty.")
        return
    await client.patch(kind.message, name, merge_patch(before, after), namespace=namespace)
    click.echo(f"{named(kind, name)} edited")


def _edited(before: dict[str, Any], message: type[Any]) -> dict[str, Any] | None:
    """What the user makes of ``before``; opened again, with the mistakes on top, until it can be read."""
    text, remarks = to_yaml(before), ""
    while True:
        saved = _open_editor(HEADER + remarks + text)
        text = "".join(line for line in saved.splitlines(keepends=True) if not line.startswith("#"))
        if not text.strip():
            return None
        if remarks and HEADER + remarks + text == saved and text == to_yaml(before):
            return before
        try:
            documents = yaml_documents(text)
            from_json(documents[0], message)
            assert isinstance(documents[0], dict)
            return documents[0]
        except DecodeError as err:
            again = "".join(f"# * {path}: {fault}\n" for path, fault in err.errors) + "#\n"
            if again == remarks:  # saved again as it was: the user gives up
                raise CtlError(f"the edited object is not valid: {err}") from err
            remarks = again


def _open_editor(text: str) -> str:
    editor = os.environ.get("KUBE_EDITOR") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory(prefix="ctl-edit-") as directory:
        path = Path(directory, "object.yaml")
        path.write_text(text)
        try:
            code = subprocess.call([*shlex.split(editor), str(path)])
        except OSError as err:
            raise CtlError(f'unable to launch the editor "{editor}": {err.strerror} (set EDITOR)') from err
        if code:
            raise CtlError(f'the editor "{editor}" ended with exit code {code}; nothing was changed')
        return path.read_text()


def merge_patch(before: Any, after: Any) -> Any:
    """The merge patch (RFC 7386) from one JSON value to another. Pure."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return after
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        if key not in before:
            patch[key] = value
        elif before[key] != value:
            patch[key] = merge_patch(before[key], value)
    return patch
