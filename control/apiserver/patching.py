"""A patch applied to an object: through its JSON, by the type of patch, back to a checked object. Pure."""

from typing import Any

from control.api import patch
from control.api.codec import DecodeError, from_json, to_json
from control.api.errors import BadRequest, Cause, NotImplementedYet, about, invalid
from control.api.kinds import Kind
from control.api.scalars import JSON


def apply_patch(kind: Kind, obj: Any, type_: str, body: JSON) -> Any:
    """``obj`` with ``body`` applied, a new object. ``type_``: json, merge, strategic or apply.

    Raises BadRequest for a patch that cannot be read or leaves no object of the kind, Invalid when it cannot be applied
    (a missing path, a failed test).
    """
    name = obj.metadata.name
    try:
        return from_json(_patched(obj, type_, body), type(obj))
    except patch.MalformedPatch as err:
        raise BadRequest(f"the {type_} patch of {kind.resource} {name!r} cannot be read: {err}") from err
    except patch.PatchError as err:
        raise invalid(kind, name, [Cause("FieldValueInvalid", err.text, err.path or "patch")]) from err
    except DecodeError as err:
        raise undecodable(kind, err) from err


def undecodable(kind: Kind, err: DecodeError) -> BadRequest:
    """The error of JSON that is not an object of ``kind``, naming every fault with its path."""
    causes = tuple(Cause("FieldValueInvalid", text, path) for path, text in err.errors)
    return BadRequest(f"this is not a {kind.kind} of {kind.api_version}: {err}", about(kind, causes=causes))


def _patched(obj: Any, type_: str, body: JSON) -> JSON:
    target = to_json(obj)
    if type_ == "json":
        return patch.apply_operations(target, body)
    if not isinstance(body, dict):
        raise patch.MalformedPatch("", f"a {type_} patch is an object")
    if type_ == "merge":
        return patch.merge(target, body)
    if type_ == "strategic":
        return patch.strategic(target, body, obj.DESCRIPTOR)
    raise NotImplementedYet("server-side apply is not implemented by this knarr version: use a strategic patch")
