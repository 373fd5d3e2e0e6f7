"""``-o``: objects as JSON, YAML, names, JSONPath or chosen columns."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from control.api.codec import to_json
from control.api.kinds import by_message
from ctl import jsonpath
from ctl.errors import CtlError
from ctl.resources import full_name
from ctl.table import render

FORMATS = (
    "wide|yaml|json|name|jsonpath=TEMPLATE|jsonpath-file=FILE|custom-columns=NAME:PATH,...|custom-columns-file=FILE"
)


@dataclass(frozen=True)
class Output:
    """A parsed ``-o``: which form, and its argument (a template, column specifications)."""

    form: str = ""
    argument: str = ""

    @property
    def is_table(self) -> bool:
        """Whether the kind's own columns are wanted."""
        return self.form in ("", "wide")

    @property
    def wide(self) -> bool:
        """Whether all of them are."""
        return self.form == "wide"


def parse_output(text: str) -> Output:
    """Read a ``-o``. Raises CtlError for an unknown form or a missing argument."""
    form, equals, argument = text.partition("=")
    if form in ("", "wide", "yaml", "json", "name") and not equals:
        return Output(form)
    if form in ("jsonpath", "custom-columns"):
        if not argument:
            raise CtlError(
                f"-o {form} needs an argument: {form}={'{.metadata.name}' if form == 'jsonpath' else 'N:.x'}"
            )
        return Output(form, argument)
    if form in ("jsonpath-file", "custom-columns-file") and argument:
        return Output(form.removesuffix("-file"), _template(form, Path(argument)))
    raise CtlError(f'unable to match a printer suitable for the output format "{text}", allowed formats are: {FORMATS}')


def _template(form: str, path: Path) -> str:
    text = path.read_text()
    if form == "jsonpath-file":
        return text
    names, paths = (line.split() for line in text.splitlines()[:2])
    return ",".join(f"{name}:{where}" for name, where in zip(names, paths, strict=True))


def neat(obj: Any) -> dict[str, Any]:
    """An object's JSON without managedFields, which are for programs."""
    data = to_json(obj)
    data.get("metadata", {}).pop("managedFields", None)
    return data


def format_objects(output: Output, objects: Sequence[Any], as_list: bool, headers: bool = True) -> str:
    """``objects`` in a form that is no table. ``as_list``: the answer is a List even of one."""
    if output.form == "name":
        return "".join(f"{full_name(obj)}\n" for obj in objects)
    items = [neat(obj) for obj in objects]
    if output.form == "custom-columns":
        return _columns(output.argument, items, headers)
    document = _list(items) if as_list else items[0]
    return _DOCUMENTS[output.form](document, output.argument)


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """YAML as kubectl writes it: keys sorted, text of several lines as a block, doubtful text in double quotes."""


def _represent_text(dumper: Any, text: str) -> Any:
    looks_like = dumper.resolve(yaml.ScalarNode, text, (True, False))
    style = "|" if "\n" in text else None if looks_like == "tag:yaml.org,2002:str" else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def to_yaml(document: dict[str, Any]) -> str:
    """A document as kubectl prints it."""
    text: str = yaml.dump(document, Dumper=_Dumper, allow_unicode=True, default_flow_style=False, width=1 << 16)
    return text


_DOCUMENTS: dict[str, Callable[[dict[str, Any], str], str]] = {
    "json": lambda document, _: json.dumps(document, indent=4, ensure_ascii=False, sort_keys=True) + "\n",
    "yaml": lambda document, _: to_yaml(document),
    "jsonpath": lambda document, template: jsonpath.render(template, document),
}


def _list(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}}


def _columns(specification: str, items: list[dict[str, Any]], headers: bool) -> str:
    columns = [_column(part) for part in specification.split(",")]
    rows = [[_cell(path, item) for _, path in columns] for item in items]
    return render([name for name, _ in columns] if headers else (), rows)


def _column(part: str) -> tuple[str, str]:
    name, colon, path = part.partition(":")
    if not colon or not name or not path:
        raise CtlError(f'"{part}" is not a column: write NAME:.path.to.field')
    return name, path


def _cell(path: str, item: dict[str, Any]) -> str:
    try:
        return ",".join(jsonpath.show(value) for value in jsonpath.find(path, item)) or "<none>"
    except jsonpath.JSONPathError:
        return "<none>"


def sort_key(path: str) -> Callable[[Any], tuple[int, Any]]:
    """A key for ``--sort-by``: numbers before text, quantities and times by value, objects without the field first."""

    def key(obj: Any) -> tuple[int, Any]:
        try:
            values = jsonpath.find(path, to_json(obj))
        except jsonpath.JSONPathError:
            return (0, 0)
        return _rank(values[0]) if values else (0, 0)

    return key


def _rank(value: Any) -> tuple[int, Any]:
    if isinstance(value, (int, float)):
        return (1, value)
    from control.api import quantity

    try:
        return (1, quantity.parse(value))
    except (quantity.QuantityError, TypeError):
        return (2, jsonpath.show(value))


def echo_objects(output: Output, objects: Sequence[Any], verb: str, note: str = "") -> str:
    """What a writing command prints: ``pod/x created``, or the objects as ``-o`` says."""
    if output.form:
        return format_objects(output, objects, as_list=len(objects) > 1)
    return "".join(f"{full_name(obj)} {verb}{note}\n" for obj in objects)


def dry_run_note(mode: str) -> str:
    """`` (dry run)`` or `` (server dry run)``."""
    return {"none": "", "client": " (dry run)", "server": " (server dry run)"}[mode]


def is_namespaced(obj: Any) -> bool:
    """Whether objects of this kind live in namespaces."""
    return by_message(obj).namespaced
