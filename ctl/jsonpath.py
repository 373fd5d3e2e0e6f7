"""JSONPath as kubectl speaks it: text with ``{expressions}``, filters, slices, ``range`` and ``end``. Pure.

    {.metadata.name}   {['metadata'].labels.app\\.kubernetes\\.io/name}   {.items[0]}  {.items[-1:]}  {.items[*].x}
    {..image}          {.items[?(@.status.phase=="Running")].metadata.name}        {.items[0,2]}  {.a['x','y']}
    {range .items[*]}{.metadata.name}{"\\t"}{.status.phase}{"\\n"}{end}

Values print as kubectl prints them: text as it is, mappings and lists as JSON, several results joined by a blank.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ctl.errors import CtlError

Step = Callable[[list[Any], Any], list[Any]]
"""From the values found so far, and the document's root, to the next values."""


class JSONPathError(CtlError):
    """The template does not parse, or names a field that is not there."""


@dataclass(frozen=True)
class Text:
    """Literal text of a template."""

    text: str


@dataclass(frozen=True)
class Path:
    """One expression: steps from the current value, or from the root for ``$``."""

    source: str
    steps: Sequence[Step]
    from_root: bool = False

    def find(self, current: Any, root: Any) -> list[Any]:
        """Every value it names. Raises JSONPathError for a missing field."""
        values = [root if self.from_root else current]
        for step in self.steps:
            values = step(values, root)
        return values


@dataclass(frozen=True)
class Range:
    """``{range PATH}...{end}``."""

    path: Path
    body: Sequence["Node"]


Node = Text | Path | Range


def render(template: str, document: Any) -> str:
    """``template`` with its expressions replaced by what they find in ``document``. Raises JSONPathError."""
    return "".join(_render(parse(template), document, document))


def find(expression: str, document: Any) -> list[Any]:
    """The values of one expression, its braces and leading dot optional: ``.spec.x``, ``{.spec.x}``, ``spec.x``."""
    return _one(expression).find(document, document)


def _one(expression: str) -> Path:
    text = expression.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1].strip()
    return _parse_path(text if text[:1] in (".", "[", "$", "@") else f".{text}")


def show(value: Any) -> str:
    """One value as text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return str(value)


def _render(nodes: Sequence[Node], current: Any, root: Any) -> Iterator[str]:
    for node in nodes:
        match node:
            case Text(text):
                yield text
            case Path():
                yield " ".join(show(value) for value in node.find(current, root))
            case Range(path, body):
                for value in path.find(current, root):
                    yield from _render(body, value, root)


# --- templates -----------------------------------------------------------------------------------------------------


def parse(template: str) -> Sequence[Node]:
    """A template's nodes. Raises JSONPathError."""
    stack: list[tuple[Path | None, list[Node]]] = [(None, [])]
    for is_action, text in _split(template):
        if not is_action:
            stack[-1][1].append(Text(text))
        elif text.startswith("range ") or text == "range":
            stack.append((_parse_path(text[5:].strip()), []))
        elif text == "end":
            path, body = stack.pop()
            if path is None:
                raise JSONPathError("jsonpath: {end} without {range}")
            stack[-1][1].append(Range(path, body))
        else:
            stack[-1][1].extend(_expressions(text))
    if len(stack) > 1:
        raise JSONPathError("jsonpath: {range} without {end}")
    return stack[0][1]


def _split(template: str) -> Iterator[tuple[bool, str]]:
    """(is an action, text) pieces; braces inside quotes do not end an action."""
    at = 0
    while at < len(template):
        start = template.find("{", at)
        if start < 0:
            yield False, template[at:]
            return
        if start > at:
            yield False, template[at:start]
        end = _matching(template, start, "{", "}")
        yield True, template[start + 1 : end].strip()
        at = end + 1


def _matching(text: str, start: int, opening: str, closing: str) -> int:
    """Index of the bracket that closes the one at ``start``. Raises JSONPathError."""
    depth, at = 0, start
    while at < len(text):
        char = text[at]
        if char in "\"'":
            at = _string_end(text, at)
        elif char == "\\":
            at += 1
        elif char == opening:
            depth += 1
        elif char == closing and (depth := depth - 1) == 0:
            return at
        at += 1
    raise JSONPathError(f"jsonpath: unclosed {opening!r} in {text!r}")


def _string_end(text: str, start: int) -> int:
    at = start + 1
    while at < len(text) and text[at] != text[start]:
        at += 2 if text[at] == "\\" else 1
    if at >= len(text):
        raise JSONPathError(f"jsonpath: unterminated string in {text!r}")
    return at


def _expressions(action: str) -> Iterator[Node]:
    """An action is paths and quoted texts, separated by blanks."""
    at = 0
    while at < len(action):
        if action[at].isspace():
            at += 1
        elif action[at] in "\"'":
            end = _string_end(action, at)
            yield Text(_unquote(action[at : end + 1]))
            at = end + 1
        else:
            end = _path_end(action, at)
            yield _parse_path(action[at:end])
            at = end


def _path_end(text: str, start: int) -> int:
    at = start
    while at < len(text) and not text[at].isspace() and text[at] not in "\"'":
        at = _matching(text, at, "[", "]") + 1 if text[at] == "[" else at + (2 if text[at] == "\\" else 1)
    return at


def _unquote(quoted: str) -> str:
    escapes = {"n": "\n", "t": "\t", "r": "\r"}
    return re.sub(r"\\(.)", lambda found: escapes.get(found[1], found[1]), quoted[1:-1])


# --- paths ---------------------------------------------------------------------------------------------------------

_FIELD = re.compile(r"(?:\\.|[^.\[\]\s\\{}()=!<>,|&])+")


def _parse_path(text: str) -> Path:
    """One path. Raises JSONPathError."""
    steps: list[Step] = []
    at = 1 if text[:1] in ("$", "@") else 0
    while at < len(text):
        step, at = _parse_step(text, at)
        if step is not None:
            steps.append(step)
    return Path(text, steps, from_root=text.startswith("$"))


def _parse_step(text: str, at: int) -> tuple[Step | None, int]:
    if text.startswith("..", at):
        return _descend, at + (1 if text[at + 2 : at + 3] not in ("[", "") else 2)
    if text[at] == "[":
        end = _matching(text, at, "[", "]")
        return _bracket(text[at + 1 : end].strip()), end + 1
    start = at + (text[at] == ".")
    if text.startswith("*", start):
        return _wildcard, start + 1
    found = _FIELD.match(text, start)
    if found is None:
        if start == len(text):
            return None, start  # a lone dot is the value itself
        raise JSONPathError(f"jsonpath: unexpected {text[start:]!r} in {text!r}")
    return _field(re.sub(r"\\(.)", r"\1", found[0])), found.end()


def _bracket(text: str) -> Step:
    if text == "*":
        return _wildcard
    if text.startswith("?"):
        return _filter(text[1:].strip())
    if text[:1] in ("'", '"'):
        return _union([_field(_unquote(part.strip())) for part in _split_commas(text)])
    return _union([_index(part.strip()) for part in text.split(",")])


def _split_commas(text: str) -> list[str]:
    parts, at = [""], 0
    while at < len(text):
        if text[at] == ",":
            parts.append("")
            at += 1
            continue
        end = _string_end(text, at) if text[at] in "\"'" else at
        parts[-1] += text[at : end + 1]
        at = end + 1
    return parts


def _union(steps: Sequence[Step]) -> Step:
    return lambda values, root: [found for step in steps for found in step(values, root)]


def _field(name: str) -> Step:
    """A missing field of a mapping is an error, as kubectl has it; of a list or text too."""

    def step(values: list[Any], root: Any) -> list[Any]:
        holders = [value for value in values if isinstance(value, dict) and name in value]
        if values and not holders:
            raise JSONPathError(f"{name} is not found")
        return [holder[name] for holder in holders]

    return step


def _index(text: str) -> Step:
    parts = text.split(":")
    try:
        numbers = [int(part) if part.strip() else None for part in parts]
    except ValueError:
        raise JSONPathError(f"jsonpath: invalid array index {text!r}") from None
    if len(parts) > 1:
        return lambda values, root: [item for value in _lists(values) for item in value[slice(*numbers)]]
    number = numbers[0]

    def step(values: list[Any], root: Any) -> list[Any]:
        found = []
        for value in _lists(values):
            if number is None or not -len(value) <= number < len(value):
                raise JSONPathError(f"array index out of bounds: index {text}, length {len(value)}")
            found.append(value[number])
        return found

    return step


def _lists(values: list[Any]) -> list[list[Any]]:
    for value in values:
        if not isinstance(value, list):
            raise JSONPathError(f"{show(value)[:40]} is not an array or slice")
    return values


def _wildcard(values: list[Any], root: Any) -> list[Any]:
    return [child for value in values for child in _children(value)]


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list) else []


def _descend(values: list[Any], root: Any) -> list[Any]:
    """Each value and everything below it that can have fields."""
    found: list[Any] = []
    for value in values:
        if isinstance(value, (dict, list)):
            found.append(value)
            found.extend(_descend(_children(value), root))
    return found


# --- filters -------------------------------------------------------------------------------------------------------

_COMPARISON = re.compile(r"^(.*?)\s*(==|!=|<=|>=|<|>)\s*(.*)$", re.DOTALL)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: bool(a == b),
    "!=": lambda a, b: bool(a != b),
    "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    ">=": lambda a, b: bool(a >= b),
}


def _filter(text: str) -> Step:
    if not (text.startswith("(") and text.endswith(")")):
        raise JSONPathError(f"jsonpath: a filter is written [?(...)], not [?{text}]")
    holds = _condition(text[1:-1].strip())
    return lambda values, root: [
        item
        for value in values
        for item in (_children(value) if isinstance(value, (list, dict)) else ())
        if holds(item, root)
    ]


def _condition(text: str) -> Callable[[Any, Any], bool]:
    for word, combine in (("||", any), ("&&", all)):
        parts = [part.strip() for part in text.split(word)]
        if len(parts) > 1:
            conditions = [_condition(part) for part in parts]
            return lambda item, root, c=combine, cs=conditions: c(one(item, root) for one in cs)  # type: ignore[misc]
    found = _COMPARISON.match(text)
    if found is None:
        exists = _operand(text)
        return lambda item, root: bool(exists(item, root))
    left, right, compare = _operand(found[1]), _operand(found[3]), _COMPARE[found[2]]
    return lambda item, root: any(_safely(compare, a, b) for a in left(item, root) for b in right(item, root))


def _safely(compare: Callable[[Any, Any], bool], a: Any, b: Any) -> bool:
    try:
        return compare(a, b)
    except TypeError:
        return False


def _operand(text: str) -> Callable[[Any, Any], list[Any]]:
    """A path (missing fields: no values), a quoted text, a number, true or false."""
    text = text.strip()
    if text[:1] in ("@", "$", "."):
        path = _parse_path(text)
        return lambda item, root: _values_or_none(path, item, root)
    if text[:1] in ("'", '"'):
        quoted = _unquote(text)
        return lambda item, root: [quoted]
    try:
        number = json.loads(text)
    except ValueError:
        raise JSONPathError(f"jsonpath: cannot read {text!r} in a filter") from None
    return lambda item, root: [number]


def _values_or_none(path: Path, item: Any, root: Any) -> list[Any]:
    try:
        return path.find(item, root)
    except JSONPathError:
        return []
