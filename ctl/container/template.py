"""The part of Go's text/template that people write after ``--format``. Pure.

Fields ``{{.A.B}}``, ``{{json .A}}``, ``{{index .A "k"}}``, ``len``, ``upper``, ``lower``, ``join``, ``println``;
``{{if}}``, ``{{else}}``, ``{{range}}`` (also ``$k, $v :=``), ``{{with}}``, ``{{end}}``; backslash t and n.
Source: pkg.go.dev/text/template.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ctl.errors import fail

Scope = dict[str, Any]
"""``.`` is the value at hand; ``$`` the root; ``$name`` variables."""

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\$?\.?[\w.\-$]+|\.|\(|\)|:=|,')


def render(template: str, root: Any) -> str:
    """The template's text for one document. Raises CtlError for what is no template, or names no field."""
    parts = _parts(template.replace("\\t", "\t").replace("\\n", "\n"))
    return _block(parts, {".": root, "$": root}, ())[0]


def _parts(template: str) -> Iterator[tuple[bool, str]]:
    """(is it an action, its text), with ``{{-`` and ``-}}`` trimmed."""
    pieces = re.split(r"(\{\{.*?\}\})", template, flags=re.DOTALL)
    for at, piece in enumerate(pieces):
        if at % 2:
            yield True, piece[2:-2].strip().removeprefix("- ").removesuffix(" -").strip()
            continue
        if at and pieces[at - 1].endswith(" -}}"):
            piece = piece.lstrip()
        if at + 1 < len(pieces) and pieces[at + 1].startswith("{{- "):
            piece = piece.rstrip()
        yield False, piece


def _block(parts: Iterator[tuple[bool, str]], scope: Scope | None, ends: Sequence[str]) -> tuple[str, str]:
    """The text up to one of ``ends``, and which; without a scope nothing is evaluated."""
    out = []
    for is_action, text in parts:
        word = text.split(None, 1)[0] if is_action and text else ""
        if not is_action:
            out.append(text)
        elif word in ends:
            return "".join(out), word
        elif word in ("if", "range", "with"):
            out.append(_control(word, text.removeprefix(word), parts, scope))
        elif not text.startswith("/*") and scope is not None:
            out.append(show(_pipeline(text, scope)))
    if ends:
        fail("template: an {{end}} is missing")
    return "".join(out), ""


def _control(word: str, condition: str, parts: Iterator[tuple[bool, str]], scope: Scope | None) -> str:
    names, _, source = condition.rpartition(":=")
    body = list(_until_end(parts))
    split = _else_at(body)
    then, otherwise = body[:split], body[split + 1 :]
    if scope is None:
        return ""
    value = _pipeline(source, scope)
    if not value:
        return _block(iter(otherwise), scope, ())[0]
    if word != "range":
        return _block(iter(then), scope if word == "if" else {**scope, ".": value}, ())[0]
    variables = [name.strip() for name in names.split(",") if name.strip()]
    pairs = sorted(value.items()) if isinstance(value, Mapping) else list(enumerate(value))
    return "".join(_block(iter(then), _inner(scope, variables, pair), ())[0] for pair in pairs)


def _inner(scope: Scope, variables: list[str], pair: tuple[Any, Any]) -> Scope:
    return {**scope, ".": pair[1], **dict(zip(reversed(variables), reversed(pair), strict=False))}


def _until_end(parts: Iterator[tuple[bool, str]]) -> Iterator[tuple[bool, str]]:
    depth = 1
    for part in parts:
        word = part[1].split(None, 1)[0] if part[0] and part[1] else ""
        depth += (word in ("if", "range", "with")) - (word == "end")
        if depth == 0:
            return
        yield part
    fail("template: an {{end}} is missing")


def _else_at(body: list[tuple[bool, str]]) -> int:
    depth = 0
    for at, (is_action, text) in enumerate(body):
        word = text.split(None, 1)[0] if is_action and text else ""
        depth += (word in ("if", "range", "with")) - (word == "end")
        if depth == 0 and word == "else":
            return at
    return len(body)


def _pipeline(text: str, scope: Scope) -> Any:
    value: list[Any] = []
    for command in text.split("|"):
        value = [_command(TOKEN.findall(command), scope, value)]
    return value[0]


def _command(tokens: list[str], scope: Scope, piped: list[Any]) -> Any:
    if not tokens:
        fail("template: an action is empty")
    function = FUNCTIONS.get(tokens[0])
    if function is None:
        if tokens[0].startswith(".Label") and len(tokens) == 2:  # docker's method
            return _labels(scope["."]).get(_operand(tokens[1], scope), "")
        return _operand(tokens[0], scope)
    operands, at = [], 1
    while at < len(tokens):
        if tokens[at] == "(":
            close = tokens.index(")", at) if ")" in tokens[at:] else len(tokens)
            operands.append(_command(tokens[at + 1 : close], scope, []))
            at = close + 1
        else:
            operands.append(_operand(tokens[at], scope))
            at += 1
    try:
        return function(*operands, *piped)
    except (TypeError, KeyError, IndexError) as err:
        fail(f"template: {' '.join(tokens)}: {err}")


def _labels(value: Any) -> Mapping[str, str]:
    text = value.get("Labels", "") if isinstance(value, Mapping) else ""
    return dict(pair.partition("=")[::2] for pair in text.split(",")) if isinstance(text, str) else text


def _operand(token: str, scope: Scope) -> Any:
    if token.startswith('"'):
        return json.loads(token)
    if re.fullmatch(r"-?\d+", token):
        return int(token)
    if token in ("true", "false"):
        return token == "true"
    head, _, path = token.partition(".")
    if head not in scope and head:
        fail(f'template: function or variable "{token}" is not defined')
    value = scope[head or "."]
    for name in path.split(".") if path else ():
        value = _field(value, name, token)
    return value


def _field(value: Any, name: str, token: str) -> Any:
    if isinstance(value, Mapping) and name in value:
        return value[name]
    if value is None or value == {}:
        return None
    fail(f"template: there is no field {name} ({token})")


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else value[key]
    return value


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False),
    "index": _index,
    "len": len,
    "upper": lambda text: str(text).upper(),
    "lower": lambda text: str(text).lower(),
    "title": lambda text: str(text).title(),
    "join": lambda items, by: by.join(items),
    "split": lambda text, by: text.split(by),
    "println": lambda *values: " ".join(map(show, values)) + "\n",
    "printf": lambda form, *values: form.replace("%v", "%s") % values,
    "eq": lambda first, *others: first in others,
    "ne": lambda first, second: first != second,
    "not": lambda value: not value,
}


def show(value: Any) -> str:
    """A value as Go prints it."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "<no value>"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{show(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(map(show, value)) + "]"
    return str(value)
