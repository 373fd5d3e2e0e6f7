"""Patches of JSON documents: merge (RFC 7386), JSON patch (RFC 6902), and Kubernetes' strategic merge.

All are pure: the target is left alone, the result shares nothing with the patch. Strategic merge knows from fields.tsv
by which key a list of objects merges. Source: apimachinery, util/strategicpatch.
"""

import copy
from typing import Any

from google.protobuf.descriptor import Descriptor

from control.api.decode import class_of
from control.api.fields import Field, fields_of
from control.api.scalars import JSON, describe

DIRECTIVE, RETAIN = "$patch", "$retainKeys"
ORDER, DELETE_PRIMITIVES = "$setElementOrder/", "$deleteFromPrimitiveList/"


class PatchError(ValueError):
    """The patch cannot be applied. ``path`` says where."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__(f"{path}: {text}" if path else text)
        self.path, self.text = path, text


class MalformedPatch(PatchError):
    """The patch itself is not one of its type, whatever the target."""


# -- RFC 7386 ----------------------------------------------------------------------------------------------------


def merge(target: JSON, patch: JSON) -> JSON:
    """RFC 7386: objects merge, null removes, everything else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


# -- RFC 6902 ----------------------------------------------------------------------------------------------------


def apply_operations(target: JSON, operations: JSON) -> JSON:
    """RFC 6902: the operations in order, all or none. Raises MalformedPatch, or PatchError for a missing path or a
    failed test."""
    if not isinstance(operations, list):
        raise MalformedPatch("", f"a JSON patch is a list of operations, got {describe(operations)}")
    result = copy.deepcopy(target)
    for index, operation in enumerate(operations):
        result = _operate(result, operation, f"operation {index}")
    return result


def _operate(document: JSON, operation: JSON, at: str) -> JSON:
    if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
        raise MalformedPatch(at, "an operation is an object with op and path")
    op, path = operation.get("op"), operation["path"]
    where = f"{at} ({op} {path})"
    if op == "add":
        return _add(document, path, copy.deepcopy(_operand(operation, "value", where)), where)
    if op == "remove":
        return _remove(document, path, where)[0]
    if op == "replace":
        return _replace(document, path, copy.deepcopy(_operand(operation, "value", where)), where)
    if op == "move":
        document, value = _remove(document, _operand(operation, "from", where), where)
        return _add(document, path, value, where)
    if op == "copy":
        return _add(document, path, copy.deepcopy(_find(document, operation.get("from"), where)), where)
    if op == "test":
        return _test(document, path, _operand(operation, "value", where), where)
    raise MalformedPatch(at, f"unknown op {op!r}: use add, remove, replace, move, copy or test")


def _operand(operation: dict[str, JSON], name: str, where: str) -> Any:
    if name not in operation:
        raise MalformedPatch(where, f"the operation needs {name}")
    return operation[name]


def _tokens(pointer: JSON, where: str) -> list[str]:
    if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")):
        raise MalformedPatch(where, f"{pointer!r} is not a JSON pointer: it starts with /")
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def _index(token: str, items: list[JSON], where: str, end: int = 0) -> int:
    """The place that ``token`` names in ``items``; ``end`` 1 allows the one after the last."""
    is_number = token.isascii() and token.isdigit() and (token == "0" or not token.startswith("0"))
    if not is_number or int(token) >= len(items) + end:
        raise PatchError(where, f"there is no element {token!r} in a list of {len(items)}")
    return int(token)


def _child(parent: JSON, token: str, where: str) -> JSON:
    if isinstance(parent, list):
        return parent[_index(token, parent, where)]
    if isinstance(parent, dict) and token in parent:
        return parent[token]
    raise PatchError(where, f"the path does not exist: there is no {token!r}")


def _find(document: JSON, pointer: JSON, where: str) -> JSON:
    for token in _tokens(pointer, where):
        document = _child(document, token, where)
    return document


def _parent(document: JSON, pointer: JSON, where: str) -> tuple[JSON, str]:
    *path, last = _tokens(pointer, where)
    for token in path:
        document = _child(document, token, where)
    return document, last


def _add(document: JSON, pointer: JSON, value: JSON, where: str) -> JSON:
    if pointer == "":
        return value
    parent, last = _parent(document, pointer, where)
    if isinstance(parent, list):
        parent.insert(len(parent) if last == "-" else _index(last, parent, where, end=1), value)
    elif isinstance(parent, dict):
        parent[last] = value
    else:
        raise PatchError(where, "the parent of the path is neither an object nor a list")
    return document


def _remove(document: JSON, pointer: JSON, where: str) -> tuple[JSON, JSON]:
    if pointer == "":
        return None, document
    parent, last = _parent(document, pointer, where)
    value = _child(parent, last, where)
    del parent[_index(last, parent, where) if isinstance(parent, list) else last]
    return document, value


def _replace(document: JSON, pointer: JSON, value: JSON, where: str) -> JSON:
    if pointer == "":
        return value
    parent, last = _parent(document, pointer, where)
    _child(parent, last, where)
    parent[_index(last, parent, where) if isinstance(parent, list) else last] = value
    return document


def _test(document: JSON, pointer: JSON, value: JSON, where: str) -> JSON:
    found = _find(document, pointer, where)
    if found != value or isinstance(found, bool) is not isinstance(value, bool):
        raise PatchError(where, f"test failed: the value is {describe(found)}")
    return document


# -- strategic merge ---------------------------------------------------------------------------------------------


def strategic(target: JSON, patch: JSON, descriptor: Descriptor | None) -> JSON:
    """Kubernetes' strategic merge of ``patch`` into ``target``, the JSON of a message of ``descriptor``.

    Without a descriptor (a map of text, embedded JSON) it merges like RFC 7386. Raises MalformedPatch.
    """
    return _merge_object(target, patch, descriptor, "")


def _merge_object(target: JSON, patch: JSON, descriptor: Descriptor | None, path: str) -> JSON:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    directive = patch.get(DIRECTIVE, "merge")
    if directive == "delete":
        return None
    if directive not in ("merge", "replace"):
        raise MalformedPatch(path, f"unknown directive $patch: {directive!r}; use merge, replace or delete")
    result = dict(target) if isinstance(target, dict) and directive == "merge" else {}
    if RETAIN in patch:
        result = {key: value for key, value in result.items() if key in patch[RETAIN]}
    for key, value in patch.items():
        if key.startswith(DELETE_PRIMITIVES):
            name = key.removeprefix(DELETE_PRIMITIVES)
            result[name] = [item for item in result.get(name) or [] if item not in value]
    for key, value in patch.items():
        if not key.startswith("$"):
            _merge_member(result, key, value, patch, descriptor, f"{path}.{key}" if path else key)
    _order_untouched(result, patch, descriptor)
    return result


def _merge_member(
    result: dict[str, JSON], key: str, value: JSON, patch: dict[str, JSON], descriptor: Descriptor | None, path: str
) -> None:
    field = _field(descriptor, key)
    if value is None:
        result.pop(key, None)
    elif isinstance(value, list) and field is not None and "merge" in field.strategy:
        merged = _merge_list(result.get(key) or [], value, field, path)
        result[key] = _ordered(merged, patch.get(ORDER + key), field.merge_key)
    elif isinstance(value, dict):
        merged = _merge_object(result.get(key), value, _inner(field), path)
        if merged is None:
            result.pop(key, None)
        else:
            result[key] = merged
    else:
        result[key] = copy.deepcopy(value)


def _order_untouched(result: dict[str, JSON], patch: dict[str, JSON], descriptor: Descriptor | None) -> None:
    """$setElementOrder of a list that the patch does not otherwise touch."""
    for key, order in patch.items():
        name = key.removeprefix(ORDER)
        field = _field(descriptor, name)
        if key.startswith(ORDER) and name not in patch and field is not None and isinstance(result.get(name), list):
            result[name] = _ordered(result[name], order, field.merge_key)


def _merge_list(target: list[JSON], patch: list[JSON], field: Field, path: str) -> list[JSON]:
    if not field.merge_key:
        return target + [item for item in patch if item not in target]
    if any(isinstance(item, dict) and item.get(DIRECTIVE) == "replace" for item in patch):
        return [copy.deepcopy(item) for item in patch if not (isinstance(item, dict) and DIRECTIVE in item)]
    result = list(target)
    for item in patch:
        _merge_item(result, item, field, path)
    return result


def _merge_item(result: list[JSON], item: JSON, field: Field, path: str) -> None:
    key = field.merge_key
    if not isinstance(item, dict) or key not in item:
        raise MalformedPatch(path, f"an element of this list needs its merge key {key}")
    places = [at for at, old in enumerate(result) if isinstance(old, dict) and old.get(key) == item[key]]
    if item.get(DIRECTIVE) == "delete":
        for at in reversed(places):
            del result[at]
    elif places:
        result[places[0]] = _merge_object(result[places[0]], item, _inner(field), f"{path}[{key}={item[key]}]")
    else:
        result.append(_merge_object({}, item, _inner(field), path))


def _ordered(items: list[JSON], order: JSON, key: str) -> list[JSON]:
    """``items`` in the order that $setElementOrder lists, the others where they were relative to their neighbours."""
    if not isinstance(order, list):
        return items
    ids = [entry.get(key) if key and isinstance(entry, dict) else entry for entry in order]
    rank = {repr(value): at for at, value in enumerate(ids)}
    listed = sorted(
        (item for item in items if repr(_identity(item, key)) in rank), key=lambda i: rank[repr(_identity(i, key))]
    )
    placed = iter(listed)
    return [next(placed) if repr(_identity(item, key)) in rank else item for item in items]


def _identity(item: JSON, key: str) -> JSON:
    return item.get(key) if key and isinstance(item, dict) else item


def _field(descriptor: Descriptor | None, member: str) -> Field | None:
    found = fields_of(descriptor).members.get(member) if descriptor is not None else None
    return found[1] if found else None


def _inner(field: Field | None) -> Any:
    """The descriptor below a field; None for maps and what is one JSON value."""
    if field is None or field.map or not field.message:
        return None
    descriptor = class_of(field.message).DESCRIPTOR
    return None if fields_of(descriptor).special else descriptor
