"""``RUN --mount``: what the flag says, and what a runner is given for it. Pure.

Source: the Dockerfile reference, "RUN --mount". Of the kinds ``ssh`` is not known.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from cri_runtime.images.digest import Digest

KINDS = ("bind", "cache", "tmpfs", "secret")
_SHARING = ("shared", "private", "locked")
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_COMMON = {"type", "target", "dst", "destination"}
_KEYS = {
    "bind": {"source", "src", "from", "ro", "readonly", "rw", "readwrite"},
    "cache": {"id", "ro", "readonly", "sharing", "from", "source", "src", "mode", "uid", "gid"},
    "tmpfs": {"size"},
    "secret": {"id", "required", "mode", "uid", "gid", "env"},
}


class MountError(ValueError):
    """A --mount that cannot be."""


@dataclass(frozen=True)
class RunMount:
    """One ``--mount``, as it is written or with its variables replaced."""

    kind: str
    target: str = ""
    source: str = "/"
    from_: str = ""
    """A stage or image; empty: the context."""
    id: str = ""
    readonly: bool = False
    sharing: str = "shared"
    required: bool = False
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    size_bytes: int = 0
    """0: the kernel's default."""
    env: str = ""
    """A secret as a variable instead of, or besides, a file."""

    def expand(self, replace_in: Callable[[str], str]) -> "RunMount":
        """With variables replaced in what may have some."""
        return replace(
            self,
            target=replace_in(self.target),
            source=replace_in(self.source),
            from_=replace_in(self.from_),
            id=replace_in(self.id),
        )

    @property
    def cache_id(self) -> str:
        """The directory name of a cache mount."""
        return Digest.of((self.id or self.target).encode()).hex[:32]


@dataclass(frozen=True)
class Bound:
    """What a runner mounts for one RunMount."""

    target: str
    """Absolute."""
    host: Path | None = None
    """A file or directory of the host, bound as it is."""
    layers: tuple[Path, ...] = ()
    """Directories, topmost first, shown as one; writes are thrown away."""
    inside: str = ""
    """The path within ``layers``, without links."""
    readonly: bool = False
    content: bytes | None = None
    """A file of this content."""
    mode: int = 0o400
    owner: tuple[int, int] = (0, 0)
    tmpfs_bytes: int | None = None
    """A tmpfs of this size; 0: the kernel's default."""


def parse_mount(text: str) -> RunMount:
    """Parse ``type=cache,target=/root/.cache``. Raises MountError."""
    fields: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        fields[key.strip().lower()] = value if equals else "true"
    kind = fields.get("type", "bind")
    if kind not in KINDS:
        raise MountError(f"--mount knows the types {', '.join(KINDS)}, not {kind}")
    unknown = set(fields) - _COMMON - _KEYS[kind]
    if unknown:
        raise MountError(f"--mount=type={kind} does not know {min(unknown)}; it knows {', '.join(sorted(_KEYS[kind]))}")
    target = _first(fields, "target", "dst", "destination")
    identity = fields.get("id", "")
    if kind == "secret":
        identity = identity or target.rpartition("/")[2]
        target = target or ("" if "env" in fields else f"/run/secrets/{identity}")
    if not (identity if kind == "secret" else target):
        raise MountError(f"--mount=type={kind} needs a target" + (" or an id" if kind == "secret" else ""))
    sharing = fields.get("sharing", "shared")
    if sharing not in _SHARING:
        raise MountError(f"--mount: sharing is {', '.join(_SHARING)}, not {sharing}")
    if kind == "cache" and fields.get("from"):
        raise MountError("--mount=type=cache cannot begin from another image here; copy in the command")
    return RunMount(
        kind,
        target,
        _first(fields, "source", "src") or "/",
        fields.get("from", ""),
        identity,
        _readonly(kind, fields),
        sharing,
        _flag(fields, "required"),
        _number(fields, "mode", 8, 0o400 if kind == "secret" else 0o755),
        _number(fields, "uid", 10, 0),
        _number(fields, "gid", 10, 0),
        _size(fields.get("size", "")),
        fields.get("env", ""),
    )


def _first(fields: dict[str, str], *names: str) -> str:
    return next((fields[name] for name in names if name in fields), "")


def _flag(fields: dict[str, str], *names: str) -> bool:
    return _first(fields, *names).lower() in ("true", "1")


def _readonly(kind: str, fields: dict[str, str]) -> bool:
    if kind == "bind":
        return not _flag(fields, "rw", "readwrite") and _first(fields, "ro", "readonly").lower() not in ("false", "0")
    return _flag(fields, "ro", "readonly")


def _number(fields: dict[str, str], name: str, base: int, default: int) -> int:
    try:
        return int(fields[name], base) if name in fields else default
    except ValueError:
        raise MountError(f"--mount: {name} is a number, not {fields[name]}") from None


def _size(text: str) -> int:
    digits = text.rstrip("bBkKmMgG")
    unit = text[len(digits) :].lower()
    unit = unit if len(unit) < 2 else unit.removesuffix("b")
    if text and (not digits.isdecimal() or unit not in _UNITS):
        raise MountError(f"--mount: size is bytes, or such as 64m, not {text}")
    return int(digits) * _UNITS[unit] if text else 0
