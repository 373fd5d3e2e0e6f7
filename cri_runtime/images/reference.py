"""Docker references: ``[host[:port]/]path[:tag][@digest]``, and how a short name becomes a full one. Pure.

Source: the grammar of distribution/reference. ``kubia`` means ``docker.io/library/kubia:latest``.
"""

import re
from dataclasses import dataclass, replace

from cri_runtime.images.digest import Digest
from cri_runtime.images.errors import InvalidDigest, InvalidReference

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_NAME_LENGTH_MAX = 255

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_BARE_ID = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Reference:
    """A full reference. At least one of ``tag`` and ``digest`` is set once :meth:`with_default_tag` was called."""

    domain: str
    """Registry host and port, ``docker.io`` when none was written."""
    path: str
    """Repository within the registry, ``library/`` included."""
    tag: str | None = None
    digest: Digest | None = None

    @property
    def name(self) -> str:
        """``domain/path``, the repository."""
        return f"{self.domain}/{self.path}"

    def __str__(self) -> str:
        """The full form, as it is stored and sent over CRI."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"

    @property
    def familiar(self) -> str:
        """The short form people type: without ``docker.io/`` and ``library/``."""
        return str(self).removeprefix(f"{DEFAULT_DOMAIN}/").removeprefix(_OFFICIAL)

    @property
    def selector(self) -> str:
        """What a registry is asked for: the digest, else the tag."""
        return self.digest or self.tag or DEFAULT_TAG

    def with_default_tag(self) -> "Reference":
        """With ``latest`` when neither tag nor digest was written."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def by_digest(self, digest: Digest) -> "Reference":
        """The same repository at ``digest``, without tag."""
        return Reference(self.domain, self.path, None, digest)


def parse(text: str) -> Reference:
    """Parse and normalise ``text``; no tag is added. Raises InvalidReference saying which part is wrong."""
    rest, at, digest_text = text.partition("@")
    digest = _digest(text, digest_text) if at else None
    rest, tag = _split_tag(text, rest)
    if _BARE_ID.match(rest):
        raise InvalidReference(f'"{text}" is an image id, not a name')
    domain, path = _split_domain(rest)
    if not _DOMAIN.match(domain):
        raise InvalidReference(f'invalid image name "{text}": "{domain}" is not a registry host')
    if not _PATH.match(path):
        raise InvalidReference(f'invalid image name "{text}": {_path_fault(path)}')
    if len(domain) + 1 + len(path) > _NAME_LENGTH_MAX:
        raise InvalidReference(f'invalid image name "{text}": a repository has at most {_NAME_LENGTH_MAX} characters')
    return Reference(domain, path, tag, digest)


def normalize(text: str) -> Reference:
    """:func:`parse`, with the default tag. Raises InvalidReference."""
    return parse(text).with_default_tag()


def _digest(text: str, digest: str) -> Digest:
    try:
        return Digest(digest)
    except InvalidDigest as err:
        raise InvalidReference(f'invalid image name "{text}": {err}') from err


def _split_tag(text: str, rest: str) -> tuple[str, str | None]:
    slash, colon = rest.rfind("/"), rest.rfind(":")
    if colon <= slash:
        return rest, None
    tag = rest[colon + 1 :]
    if not _TAG.match(tag):
        raise InvalidReference(
            f'invalid image name "{text}": the tag "{tag}" is not 1 to 128 letters, digits, "_", "." and "-"'
        )
    return rest[:colon], tag


def _split_domain(rest: str) -> tuple[str, str]:
    """Docker's rule: the first component is a host when it has a dot or colon, is localhost, or has upper case."""
    first, slash, path = rest.partition("/")
    if not slash or not (any(c in first for c in ".:") or first == "localhost" or first != first.lower()):
        domain, path = DEFAULT_DOMAIN, rest
    else:
        domain = DEFAULT_DOMAIN if first == _LEGACY_DOMAIN else first
    if domain == DEFAULT_DOMAIN and path and "/" not in path:
        path = _OFFICIAL + path
    return domain, path


def _path_fault(path: str) -> str:
    if not path.removeprefix(_OFFICIAL):
        return "the repository is empty"
    if path != path.lower():
        return "a repository is lower case"
    return 'a repository is lower-case letters and digits, joined by ".", "_", "__", "-" and "/"'
