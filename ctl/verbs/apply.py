"""``ctl apply``: make objects be as a file says, leaving alone what the file does not speak of."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from control.api.codec import to_json
from control.api.kinds import by_message
from control.client import Client, errors
from ctl.command import cluster_command, dry_run, filenames, output
from ctl.context import Context
from ctl.errors import CtlError
from ctl.manifests import place, read_objects
from ctl.output import dry_run_note, echo_objects, parse_output

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""What was applied last: fields that were in it and are no longer are to be removed."""


@cluster_command()
@filenames
@dry_run
@output()
@click.option("--server-side", is_flag=True, help="Let the server merge, and track who owns which field.")
@click.option("--force-conflicts", is_flag=True, help="With --server-side: take fields over from other owners.")
async def apply(
    context: Context,
    client: Client,
    files: Sequence[str],
    dry_run: str,
    output_format: str,
    server_side: bool,
    force_conflicts: bool,
) -> None:
    """Make objects be as a file says: create those that are missing, change those that differ."""
    if not files:
        raise CtlError("must specify -f")
    parsed = parse_output(output_format)
    namespace, explicit = context.current_namespace(), context.namespace is not None
    for obj in read_objects(files):
        place(obj, namespace, explicit)
        if server_side:
            stored, verb = await _apply_on_server(client, obj, dry_run, force_conflicts)
        else:
            stored, verb = await _apply(client, obj, dry_run)
        click.echo(echo_objects(parsed, [stored], verb, dry_run_note(dry_run)), nl=False)


async def _apply_on_server(client: Client, obj: Any, mode: str, force: bool) -> tuple[Any, str]:
    if mode == "client":
        raise CtlError("--dry-run=client doesn't work with --server-side (did you mean --dry-run=server instead?)")
    stored = await client.patch(
        type(obj),
        obj.metadata.name,
        _manifest(obj),
        namespace=obj.metadata.namespace,
        patch_type="apply",
        field_manager="ctl",
        force=force,
        dry_run=mode == "server",
    )
    return stored, "serverside-applied"


async def _apply(client: Client, obj: Any, mode: str) -> tuple[Any, str]:
    wanted = _manifest(obj)
    text = applied_text(wanted)
    try:
        live = await client.get(type(obj), obj.metadata.name, namespace=obj.metadata.namespace)
    except errors.NotFound:
        obj.metadata.annotations[LAST_APPLIED] = text
        return (obj if mode == "client" else await client.create(obj, dry_run=mode == "server")), "created"
    current = to_json(live)
    patch = apply_patch(_with_maps(_last_applied(live)), _with_maps(wanted), _with_maps(current))
    if not patch:
        return live, "unchanged"
    if _last_applied_text(live) != text:
        patch.setdefault("metadata", {}).setdefault("annotations", {})[LAST_APPLIED] = text
    if mode == "client":
        return live, "configured"
    return await client.patch(
        type(obj),
        obj.metadata.name,
        patch,
        namespace=obj.metadata.namespace,
        patch_type="merge",
        dry_run=mode == "server",
    ), "configured"


def _manifest(obj: Any) -> dict[str, Any]:
    """What the file said: no status, nothing that only the server sets."""
    data = to_json(obj)
    data.pop("status", None)
    kind = by_message(obj)
    for key in ("creationTimestamp", "resourceVersion", "uid", "managedFields"):
        data.get("metadata", {}).pop(key, None)
    return {"apiVersion": kind.api_version, "kind": kind.kind, **_without_empty(data)}


def _without_empty(data: dict[str, Any]) -> dict[str, Any]:
    """JSON has some fields that no manifest writes (``resources: {}``); an empty value is not a wish."""
    return {key: _pruned(value) for key, value in data.items() if value not in (None, {}, [], "")}


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return _without_empty(value)
    return [_pruned(item) for item in value] if isinstance(value, list) else value


def applied_text(wanted: dict[str, Any]) -> str:
    """The annotation's text, byte for byte as kubectl writes it, so that the two can take turns."""
    metadata = wanted.get("metadata", {})
    annotations = {key: value for key, value in metadata.get("annotations", {}).items() if key != LAST_APPLIED}
    data = {**wanted, "metadata": {**metadata, "annotations": annotations}}
    text = json.dumps(data, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    for char in "<>&":  # as Go's encoder does
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text + "\n"


def _with_maps(data: dict[str, Any]) -> dict[str, Any]:
    """With labels and annotations, if only empty: their members are somebody's each, so they never go as a whole."""
    metadata = data.get("metadata", {})
    return {**data, "metadata": {**metadata, **{key: metadata.get(key) or {} for key in ("labels", "annotations")}}}


def _last_applied_text(live: Any) -> str:
    return str(live.metadata.annotations.get(LAST_APPLIED, ""))


def _last_applied(live: Any) -> dict[str, Any]:
    try:
        applied = json.loads(_last_applied_text(live))
    except ValueError:
        return {}
    return applied if isinstance(applied, dict) else {}


def apply_patch(last: Mapping[str, Any], wanted: Mapping[str, Any], live: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch (RFC 7386) that makes ``live`` be as ``wanted``; empty when it is already. Pure.

    What ``last`` had and ``wanted`` has not is removed; what only ``live`` has is somebody else's and stays. A list
    is one value, except that extra fields which the server defaulted inside its items are no difference.
    """
    patch: dict[str, Any] = {}
    for key, value in wanted.items():
        if isinstance(value, Mapping) and isinstance(live.get(key), Mapping):
            before = last.get(key)
            if inner := apply_patch(before if isinstance(before, Mapping) else {}, value, live[key]):
                patch[key] = inner
        elif key not in live or not _covers(live[key], value):
            patch[key] = value
    for key in last:
        if key not in wanted and key in live and key not in ("apiVersion", "kind"):
            patch[key] = None
    return patch


def _covers(live: Any, wanted: Any) -> bool:
    """Whether ``live`` has everything that ``wanted`` asks for."""
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        return all(key in live and _covers(live[key], value) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(live, list):
        return len(live) == len(wanted) and all(map(_covers, live, wanted))
    return bool(live == wanted)
