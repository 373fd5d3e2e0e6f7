"""``.dockerignore``: which files of a directory are no part of the build context. Pure.

Source: the Dockerfile reference, ".dockerignore file": patterns of Go's ``filepath.Match`` with ``**``, the last one
that matches decides, ``!`` takes back, a directory goes with all below it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class IgnoreError(ValueError):
    """A line that is no pattern; the text has its number."""


@dataclass(frozen=True)
class _Rule:
    regex: re.Pattern[str]
    names: tuple[str, ...]
    keeps: bool


class Ignore:
    """The rules of one file."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        """Read the file's lines. Raises IgnoreError."""
        self._rules = [rule for number, line in enumerate(lines, 1) if (rule := _rule(number, line))]

    def excludes(self, path: str) -> bool:
        """Whether the file or directory ``path`` (relative, with ``/``) is left out."""
        parents = _parents(path)
        verdict = False
        for rule in self._rules:
            if rule.keeps == verdict and any(rule.regex.match(p) for p in parents):
                verdict = not rule.keeps
        return verdict

    def prunes(self, directory: str) -> bool:
        """Whether nothing below an excluded directory can be taken back, so that it need not be walked."""
        if not self.excludes(directory):
            return False
        names = directory.split("/")
        return not any(rule.keeps and _may_be_below(rule.names, names) for rule in self._rules)


def _rule(number: int, line: str) -> _Rule | None:
    text = line.removeprefix("\ufeff").strip()
    if not text or line.startswith("#"):
        return None
    keeps = text.startswith("!")
    names = _clean(text.removeprefix("!").strip())
    if not names:
        return None
    try:
        return _Rule(re.compile(_regex(names), re.DOTALL), tuple(names), keeps)
    except re.error as err:
        raise IgnoreError(f'line {number}: "{text}" is not a pattern: {err}') from err


def _clean(pattern: str) -> list[str]:
    done: list[str] = []
    for name in pattern.split("/"):
        if name == "..":
            del done[-1:]
        elif name not in ("", "."):
            done.append(name)
    return done


def _parents(path: str) -> Sequence[str]:
    names = path.split("/")
    return ["/".join(names[:depth]) for depth in range(1, len(names) + 1)]


def _may_be_below(pattern: Sequence[str], names: Sequence[str]) -> bool:
    """Whether a pattern can match something below a directory."""
    for wanted, name in zip(pattern, names, strict=False):
        if wanted == "**":
            return True
        if not re.fullmatch(_component(wanted), name, re.DOTALL):
            return False
    return len(pattern) > len(names) or "**" in pattern


def _regex(names: Sequence[str]) -> str:
    out = ""
    for at, name in enumerate(names):
        last = at == len(names) - 1
        if name == "**":
            out += ".*" if last else "(?:.*/)?"
        else:
            out += _component(name) + ("" if last else "/")
    return out + r"\Z"


def _component(pattern: str) -> str:
    out, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            out += ".*" if pattern[at : at + 1] == "*" else "[^/]*"
            at += pattern[at : at + 1] == "*"
        elif char == "?":
            out += "[^/]"
        elif char == "[" and (end := pattern.find("]", at + 1)) > 0:
            body = pattern[at:end]
            out += "[" + ("^" + body[1:] if body[0] == "^" else body) + "]"
            at = end + 1
        else:
            if char == "\\" and at < len(pattern):
                char, at = pattern[at], at + 1
            out += re.escape(char)
    return out
