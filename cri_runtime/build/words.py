"""The shell-like words of a Dockerfile: quotes, escapes and variables. Pure.

Source: the Dockerfile reference, "Environment replacement": ``$v``, ``${v}``, ``${v:-word}``, ``${v:+word}``,
``${v:?word}`` and these without colon, ``${v#pattern}``, ``##``, ``%``, ``%%``, ``/pattern/new`` and ``//``.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?$!-]")
_OPERATORS = ("##", "%%", "//", ":-", ":+", ":?", "#", "%", "/", "-", "+", "?")


class WordError(ValueError):
    """A word that does not end its quote or brace, or a required variable that is not set."""


def expand(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """One word: variables replaced, quotes and escapes removed. Raises WordError."""
    return _Expander(text, variables, escape).run()


def expand_only(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """Replace variables, and keep quotes as they are (here-documents). Raises WordError."""
    return _Expander(text, variables, escape, quotes=False).run()


def split_words(text: str, escape: str = "\\") -> list[str]:
    """Split at blanks outside quotes; quotes and escapes stay for :func:`expand`. Raises WordError."""
    words: list[str] = []
    current, quote, at = "", "", 0
    while at < len(text):
        char = text[at]
        if char == escape and quote != "'" and at + 1 < len(text):
            current += text[at : at + 2]
            at += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char.isspace():
            words += [current] if current else []
            current, at = "", at + 1
            continue
        current += char
        at += 1
    if quote:
        raise WordError(f"a {quote} is not closed")
    return words + ([current] if current else [])


class _Expander:
    """One pass over a word. ``_at`` is the next character."""

    def __init__(self, text: str, variables: Mapping[str, str], escape: str, quotes: bool = True) -> None:
        self._text = text
        self._variables = variables
        self._escape = escape
        self._quotes = quotes
        self._at = 0

    def run(self) -> str:
        out = self._until("")
        return out

    def _until(self, stop: str, in_double: bool = False) -> str:
        """Expand up to an unquoted ``stop`` character, which is consumed; ``""``: up to the end."""
        out = ""
        while self._at < len(self._text):
            char = self._text[self._at]
            self._at += 1
            if char == stop:
                return out
            if char == self._escape:
                out += self._escaped(in_double)
            elif char == "$":
                out += self._variable()
            elif char == "'" and self._quotes and not in_double:
                out += self._single_quoted()
            elif char == '"' and self._quotes and not in_double:
                out += self._until('"', in_double=True)
            else:
                out += char
        if stop:
            raise WordError(f"a {stop} is missing")
        return out

    def _escaped(self, in_double: bool) -> str:
        if self._at >= len(self._text):
            return self._escape
        char = self._text[self._at]
        self._at += 1
        keep = (in_double and char not in ('"', "$", self._escape)) or (
            not self._quotes and char not in "$" + self._escape
        )
        return self._escape + char if keep else char

    def _single_quoted(self) -> str:
        end = self._text.find("'", self._at)
        if end < 0:
            raise WordError("a ' is not closed")
        out, self._at = self._text[self._at : end], end + 1
        return out

    def _variable(self) -> str:
        if self._text[self._at : self._at + 1] == "{":
            self._at += 1
            return self._braced()
        match = _NAME.match(self._text, self._at)
        if match is None:
            return "$"
        self._at = match.end()
        return self._variables.get(match[0], "")

    def _braced(self) -> str:
        match = _NAME.match(self._text, self._at)
        if match is None:
            raise WordError("${ is not followed by a variable's name")
        name, self._at = match[0], match.end()
        if self._text[self._at : self._at + 1] == "}":
            self._at += 1
            return self._variables.get(name, "")
        operator = next((op for op in _OPERATORS if self._text.startswith(op, self._at)), None)
        if operator is None:
            raise WordError(f"${{{name}: unknown modifier, or a }} is missing")
        self._at += len(operator)
        if operator in ("/", "//"):
            pattern, new = self._until("/"), self._until("}")
            return _replace(self._variables.get(name, ""), pattern, new, all_of_it=operator == "//")
        return self._modified(name, operator, self._until("}"))

    def _modified(self, name: str, operator: str, word: str) -> str:
        value = self._variables.get(name)
        if operator in ("#", "##", "%", "%%"):
            return _trim(value or "", word, operator)
        present = bool(value) if operator.startswith(":") else value is not None
        match operator[-1]:
            case "-":
                return value or "" if present else word
            case "+":
                return word if present else ""
            case _:
                if not present:
                    raise WordError(f"{name}: {word or 'is not set'}")
                return value or ""


def _trim(value: str, pattern: str, operator: str) -> str:
    """Remove the shortest or longest prefix (``#``) or suffix (``%``) that matches the glob."""
    ends = range(len(value) + 1)
    cuts = ends if operator in ("#", "%%") else reversed(ends)
    whole = re.compile(glob_regex(pattern) + r"\Z", re.DOTALL)
    for cut in cuts:
        part = value[:cut] if operator.startswith("#") else value[cut:]
        if whole.match(part):
            return value[cut:] if operator.startswith("#") else value[:cut]
    return value


def _replace(value: str, pattern: str, new: str, all_of_it: bool) -> str:
    if not pattern:
        return value
    return re.compile(glob_regex(pattern), re.DOTALL).sub(lambda _: new, value, count=0 if all_of_it else 1)


@lru_cache(256)
def glob_regex(pattern: str, star: str = ".*", any_char: str = ".") -> str:
    """A regular expression for a glob of ``*``, ``?``, ``[...]`` and escapes; ``star`` is what ``*`` spans."""
    out, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            out += star
        elif char == "?":
            out += any_char
        elif char == "[" and (end := pattern.find("]", at + 1)) > 0:
            body = pattern[at:end].replace("\\", "\\\\")
            out += "[" + ("^" + body[1:] if body[0] in "^!" else body) + "]"
            at = end + 1
        else:
            if char == "\\" and at < len(pattern):
                char, at = pattern[at], at + 1
            out += re.escape(char)
    return out
