"""Dockerfile text to nodes: directives, comments, continued lines, flags, heredocs. Pure.

Source: the Dockerfile reference, "Format", "Parser directives", "Here-Documents". What the words of an instruction mean
is for :mod:`.instructions`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from cri_runtime.build.errors import DockerfileError

_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*\Z")
_KNOWN_DIRECTIVES = ("syntax", "escape", "check")
_HEREDOC = re.compile(r"(?<![<\w])<<(-?)(['\"]?)([A-Za-z_][A-Za-z0-9_.-]*)\2(?!<)")
_HEREDOC_INSTRUCTIONS = ("RUN", "COPY", "ADD")
_FLAG = re.compile(r"--[a-z][a-z-]*(?:=\S*)?(?:\s+|\Z)")
BYTES_MAX = 4 << 20


@dataclass(frozen=True)
class Heredoc:
    """A document in the Dockerfile: ``COPY <<EOF /x``."""

    name: str
    content: str
    expand: bool
    """Variables are replaced, unless the name was quoted."""


@dataclass(frozen=True)
class Node:
    """One instruction."""

    keyword: str
    """In upper case."""
    flags: tuple[tuple[str, str], ...]
    """``--name=value`` before the arguments, in order; ``""`` for a flag without value."""
    text: str
    """The arguments on one line."""
    line: int
    """Where it begins, 1-based."""
    heredocs: tuple[Heredoc, ...] = field(default=())


@dataclass(frozen=True)
class Dockerfile:
    """A parsed Dockerfile."""

    nodes: tuple[Node, ...]
    escape: str
    """The character that continues lines and quotes: backslash or backtick."""


def parse(data: bytes) -> Dockerfile:
    """Parse a Dockerfile. Raises DockerfileError with the line."""
    if len(data) > BYTES_MAX:
        raise DockerfileError(0, f"the Dockerfile is larger than {BYTES_MAX} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise DockerfileError(data[: err.start].count(b"\n") + 1, "the Dockerfile is not UTF-8 text") from err
    lines = text.replace("\r\n", "\n").split("\n")
    escape = _directives(lines)
    nodes = tuple(_nodes(lines, escape))
    if not nodes:
        raise DockerfileError(0, "the Dockerfile is empty: it needs at least a FROM")
    return Dockerfile(nodes, escape)


def _directives(lines: list[str]) -> str:
    """The escape character. Directives stand before anything else; the first other line ends them."""
    escape, seen = "\\", set()
    for number, line in enumerate(lines, 1):
        match = _DIRECTIVE.match(line.strip())
        if match is None or match[1].lower() not in _KNOWN_DIRECTIVES:
            break
        name = match[1].lower()
        if name in seen:
            raise DockerfileError(number, f"the directive {name} is given twice")
        seen.add(name)
        if name == "escape":
            escape = match[2]
            if escape not in ("\\", "`"):
                raise DockerfileError(number, f'the escape character is "\\" or "`", not "{escape}"')
    return escape


def _nodes(lines: list[str], escape: str) -> Iterator[Node]:
    continued = re.compile(re.escape(escape) + r"[ \t]*\Z")
    at = 0
    while at < len(lines):
        if _ignored(lines[at]):
            at += 1
            continue
        start, parts = at, list[str]()
        while at < len(lines):
            line, at = lines[at], at + 1
            if parts and _ignored(line):
                continue
            match = continued.search(line)
            parts.append(line[: match.start()] if match else line)
            if match is None:
                break
        joined = "".join(parts)  # as they are: a word may be continued too
        if not joined.strip():
            continue
        keyword, flags, text = _split(joined)
        heredocs: tuple[Heredoc, ...] = ()
        if keyword in _HEREDOC_INSTRUCTIONS:
            heredocs, at = _heredocs(text, lines, at, start + 1)
        yield Node(keyword, flags, text, start + 1, heredocs)


def _ignored(line: str) -> bool:
    stripped = line.strip()
    return not stripped or stripped.startswith("#")


def _split(text: str) -> tuple[str, tuple[tuple[str, str], ...], str]:
    """Keyword, flags and arguments."""
    keyword, *rest = text.split(maxsplit=1)
    arguments = rest[0].rstrip() if rest else ""
    flags = []
    while match := _FLAG.match(arguments):
        name, _, value = match[0].strip()[2:].partition("=")
        flags.append((name, value))
        arguments = arguments[match.end() :]
    return keyword.upper(), tuple(flags), arguments


def _heredocs(text: str, lines: list[str], at: int, line: int) -> tuple[tuple[Heredoc, ...], int]:
    found = []
    for dash, quote, name in _HEREDOC.findall(text):
        body: list[str] = []
        while True:
            if at >= len(lines):
                raise DockerfileError(line, f'the here-document "{name}" has no end: no line is just {name}')
            current, at = lines[at], at + 1
            if dash:
                current = current.lstrip("\t")
            if current == name:
                break
            body.append(current + "\n")
        found.append(Heredoc(name, "".join(body), expand=not quote))
    return tuple(found), at


__all__ = ["Dockerfile", "Heredoc", "Node", "parse"]
