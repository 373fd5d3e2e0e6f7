"""Nodes to typed instructions: what each means, checked as far as its text tells. Pure.

Variables are not replaced yet: their values depend on the base image and on the instructions before.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from cri_runtime.build.errors import DockerfileError
from cri_runtime.build.mounts import MountError, RunMount, parse_mount
from cri_runtime.build.parser import Dockerfile, Heredoc, Node
from cri_runtime.build.words import WordError, split_words

NETWORKS = ("default", "none", "host")
_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True)
class Instruction:
    """What all have in common."""

    line: int
    text: str
    """The instruction on one line, for people and for the image's history."""


@dataclass(frozen=True)
class From(Instruction):
    """Begins a stage."""

    image: str
    name: str | None = None
    platform: str = ""


@dataclass(frozen=True)
class Arg(Instruction):
    """Build arguments with their defaults; None has none."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class Env(Instruction):
    """Environment variables."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Label(Instruction):
    """Labels."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Copy(Instruction):
    """COPY, and ADD with ``extract``."""

    sources: tuple[str, ...]
    target: str
    from_: str = ""
    """A stage's name or number, or an image; empty: the context."""
    chown: str = ""
    chmod: str = ""
    exclude: tuple[str, ...] = ()
    documents: tuple[Heredoc, ...] = ()
    extract: bool = False
    """ADD: local archives are unpacked, URLs fetched."""
    checksum: str = ""
    """Of the URL's content."""


@dataclass(frozen=True)
class Run(Instruction):
    """A command in the stage's file system."""

    command: tuple[str, ...] | str
    """Words of the exec form; text for the shell."""
    documents: tuple[Heredoc, ...] = ()
    mounts: tuple[RunMount, ...] = ()
    network: str = "default"
    """Or ``none``, ``host``."""


@dataclass(frozen=True)
class Command(Instruction):
    """CMD or ENTRYPOINT."""

    keyword: str
    command: tuple[str, ...] | str


@dataclass(frozen=True)
class Shell(Instruction):
    """The shell of the shell form."""

    command: tuple[str, ...]


@dataclass(frozen=True)
class Workdir(Instruction):
    """Working directory; made when absent."""

    path: str


@dataclass(frozen=True)
class User(Instruction):
    """User and group of the process."""

    user: str


@dataclass(frozen=True)
class Expose(Instruction):
    """Ports that the image listens on."""

    ports: tuple[str, ...]


@dataclass(frozen=True)
class Volume(Instruction):
    """Mount points."""

    paths: tuple[str, ...]


@dataclass(frozen=True)
class StopSignal(Instruction):
    """Which signal asks the process to stop."""

    signal: str


@dataclass(frozen=True)
class Healthcheck(Instruction):
    """How to test the container; an OCI-style dict, ``{"Test": ["NONE"]}`` for none."""

    check: Mapping[str, Any]


@dataclass(frozen=True)
class OnBuild(Instruction):
    """An instruction for images built from this one."""

    trigger: str


@dataclass(frozen=True)
class Maintainer(Instruction):
    """The author; deprecated by LABEL."""

    name: str


def read(dockerfile: Dockerfile) -> tuple[Instruction, ...]:
    """All instructions. Raises DockerfileError with the line and what is wrong with it."""
    found = tuple(_Reader(node, dockerfile.escape).read() for node in dockerfile.nodes)
    for instruction in found:
        if isinstance(instruction, From):
            return found
        if not isinstance(instruction, Arg):
            raise DockerfileError(instruction.line, "only ARG may stand before the first FROM")
    raise DockerfileError(found[-1].line, "there is no FROM: a build begins with a base image, or FROM scratch")


class _Reader:
    """Reads one node."""

    def __init__(self, node: Node, escape: str) -> None:
        self._node = node
        self._escape = escape
        self._flags: dict[str, list[str]] = {}

    def read(self) -> Instruction:
        reader = _READERS.get(self._node.keyword)
        if reader is None:
            raise self._unknown()
        if not self._node.text:
            raise self._wrong("needs an argument")
        for name, value in self._node.flags:
            self._flags.setdefault(name, []).append(value)
        instruction = reader(self)
        if self._flags:
            raise self._wrong(f"does not know the flag --{next(iter(self._flags))}")
        return instruction

    def _unknown(self) -> DockerfileError:
        keyword = self._node.keyword
        close = get_close_matches(keyword, _READERS, 1)
        hint = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(_READERS))}"
        return DockerfileError(self._node.line, f"unknown instruction {keyword}{hint}")

    def _wrong(self, fault: str) -> DockerfileError:
        return DockerfileError(self._node.line, f"{self._node.keyword} {fault}")

    def _common(self) -> tuple[int, str]:
        flags = [f"--{name}={value}" if value else f"--{name}" for name, value in self._node.flags]
        return self._node.line, " ".join([self._node.keyword, *flags, self._node.text])

    def _flag(self, name: str) -> str:
        values = self._flags.pop(name, [""])
        if len(values) > 1:
            raise self._wrong(f"takes --{name} once")
        return values[0]

    def _words(self) -> list[str]:
        try:
            return split_words(self._node.text, self._escape)
        except WordError as err:
            raise self._wrong(f"cannot be split into words: {err}") from err

    def _json(self) -> tuple[str, ...] | None:
        """The exec form; None when the text is no JSON list of strings (then it is the shell form)."""
        if not self._node.text.startswith("["):
            return None
        try:
            words = json.loads(self._node.text)
        except ValueError:
            return None
        return tuple(words) if all(isinstance(word, str) for word in words) else None

    def _form(self) -> tuple[str, ...] | str:
        words = self._json()
        return self._node.text if words is None else words

    def from_(self) -> Instruction:
        words = self._words()
        platform = self._flag("platform")
        if len(words) == 1:
            return From(*self._common(), words[0], None, platform)
        if len(words) != 3 or words[1].upper() != "AS":
            raise self._wrong("is written FROM image or FROM image AS name")
        name = words[2].lower()
        if not _STAGE_NAME.match(name):
            raise self._wrong(f'cannot name a stage "{words[2]}": a letter, then letters, digits, "_", "." and "-"')
        return From(*self._common(), words[0], name, platform)

    def arg(self) -> Instruction:
        pairs = []
        for word in self._words():
            name, equals, value = word.partition("=")
            pairs.append((self._variable(name), value if equals else None))
        return Arg(*self._common(), tuple(pairs))

    def _variable(self, name: str) -> str:
        if not _VARIABLE.match(name):
            raise self._wrong(f'cannot name a variable "{name}"')
        return name

    def _pairs(self) -> tuple[tuple[str, str], ...]:
        """``A=b C=d``, or the old form ``A b c`` with one name."""
        words = self._words()
        if "=" not in words[0]:
            name, *rest = self._node.text.split(maxsplit=1)
            if not rest:
                raise self._wrong(f"needs a value: {name}=value")
            return ((name, rest[0]),)
        for word in words:
            if "=" not in word or word.startswith("="):
                raise self._wrong(f'takes name=value pairs, and "{word}" is none')
        return tuple((w.partition("=")[0], w.partition("=")[2]) for w in words)

    def env(self) -> Instruction:
        return Env(*self._common(), self._pairs())

    def label(self) -> Instruction:
        return Label(*self._common(), self._pairs())

    def copy(self) -> Instruction:
        words = self._json() or tuple(self._words())
        if len(words) < 2:
            raise self._wrong("needs at least one source and a target")
        names = {
            f"<<{dash}{quote}{d.name}{quote}"
            for d in self._node.heredocs
            for dash in ("", "-")
            for quote in ("", "'", '"')
        }
        self._flags.pop("link", None)  # our layers never depend on what lies below
        extract = self._node.keyword == "ADD"
        return Copy(
            *self._common(),
            tuple(word for word in words[:-1] if word not in names),
            words[-1],
            "" if extract else self._flag("from"),
            self._flag("chown"),
            self._flag("chmod"),
            tuple(self._flags.pop("exclude", [])),
            self._node.heredocs,
            extract,
            self._flag("checksum") if extract else "",
        )

    def run(self) -> Instruction:
        try:
            mounts = tuple(parse_mount(text) for text in self._flags.pop("mount", []))
        except MountError as err:
            raise self._wrong(str(err)) from err
        network = self._flag("network") or "default"
        if network not in NETWORKS:
            raise self._wrong(f"takes --network={', '.join(NETWORKS)}, not {network}")
        return Run(*self._common(), self._form(), self._node.heredocs, mounts, network)

    def command(self) -> Instruction:
        return Command(*self._common(), self._node.keyword, self._form())

    def shell(self) -> Instruction:
        words = self._json()
        if not words:
            raise self._wrong('takes the JSON form: SHELL ["/bin/sh", "-c"]')
        return Shell(*self._common(), words)

    def workdir(self) -> Instruction:
        return Workdir(*self._common(), self._node.text)

    def user(self) -> Instruction:
        return User(*self._common(), self._node.text)

    def expose(self) -> Instruction:
        return Expose(*self._common(), tuple(self._words()))

    def volume(self) -> Instruction:
        paths = self._json() or tuple(self._words())
        if not all(paths):
            raise self._wrong("takes paths, and one is empty")
        return Volume(*self._common(), paths)

    def stop_signal(self) -> Instruction:
        return StopSignal(*self._common(), self._node.text)

    def healthcheck(self) -> Instruction:
        kind, *rest = self._node.text.split(maxsplit=1)
        if kind.upper() == "NONE":
            return Healthcheck(*self._common(), {"Test": ["NONE"]})
        if kind.upper() != "CMD" or not rest:
            raise self._wrong("is written HEALTHCHECK NONE or HEALTHCHECK [flags] CMD command")
        check: dict[str, Any] = {}
        for flag, key in (
            ("interval", "Interval"),
            ("timeout", "Timeout"),
            ("start-period", "StartPeriod"),
            ("start-interval", "StartInterval"),
        ):
            value = self._flag(flag)
            if value:
                check[key] = self._duration_ns(flag, value)
        retries = self._flag("retries")
        if retries:
            check["Retries"] = self._count(retries)
        return Healthcheck(*self._common(), {"Test": _health_command(rest[0]), **check})

    def _count(self, text: str) -> int:
        if not text.isdecimal():
            raise self._wrong(f'takes a number for --retries, not "{text}"')
        return int(text)

    def _duration_ns(self, flag: str, text: str) -> int:
        units = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
        if not re.fullmatch(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+", text):
            raise self._wrong(f'takes a duration such as 30s for --{flag}, not "{text}"')
        return sum(int(float(n) * units[u]) for n, u in re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", text))

    def on_build(self) -> Instruction:
        keyword = self._node.text.split()[0].upper()
        if keyword in ("ONBUILD", "FROM", "MAINTAINER"):
            raise self._wrong(f"cannot trigger {keyword}")
        flags = [f"--{name}={value}" if value else f"--{name}" for name, value in self._node.flags]
        self._flags.clear()
        return OnBuild(*self._common(), " ".join([*flags, self._node.text]))

    def maintainer(self) -> Instruction:
        return Maintainer(*self._common(), self._node.text)


def _health_command(text: str) -> list[str]:
    if text.startswith("["):
        try:
            return ["CMD", *map(str, json.loads(text))]
        except ValueError:
            pass
    return ["CMD-SHELL", text]


_READERS: dict[str, Callable[[_Reader], Instruction]] = {
    "FROM": _Reader.from_,
    "ARG": _Reader.arg,
    "ENV": _Reader.env,
    "LABEL": _Reader.label,
    "COPY": _Reader.copy,
    "ADD": _Reader.copy,
    "RUN": _Reader.run,
    "CMD": _Reader.command,
    "ENTRYPOINT": _Reader.command,
    "SHELL": _Reader.shell,
    "WORKDIR": _Reader.workdir,
    "USER": _Reader.user,
    "EXPOSE": _Reader.expose,
    "VOLUME": _Reader.volume,
    "STOPSIGNAL": _Reader.stop_signal,
    "HEALTHCHECK": _Reader.healthcheck,
    "ONBUILD": _Reader.on_build,
    "MAINTAINER": _Reader.maintainer,
}
