"""Digests as a type: ``Digest("sha256:…")`` cannot be made from a bad string (image-spec, descriptor.md#digests)."""

import hashlib
import re
from typing import Any

from cri_runtime.images.errors import InvalidDigest

_HEX_DIGITS = {"sha256": 64, "sha512": 128}
_FORM = re.compile(r"(sha256|sha512):([0-9a-f]+)\Z")


class Digest(str):
    """``algorithm:hex`` of registered algorithms. Raises InvalidDigest for any other text."""

    __slots__ = ()

    def __new__(cls, text: str) -> "Digest":
        """Validate ``text``."""
        match = _FORM.match(text)
        if match is None or len(match[2]) != _HEX_DIGITS[match[1]]:
            raise InvalidDigest(f'"{text[:200]}" is not a digest; write sha256: and 64 lower-case hex digits')
        return super().__new__(cls, text)

    @property
    def algorithm(self) -> str:
        """``sha256`` or ``sha512``."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """The part after the colon."""
        return self.partition(":")[2]

    def hasher(self) -> "Hasher":
        """A fresh hasher of this digest's algorithm."""
        return Hasher(self.algorithm)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> "Digest":
        """The digest of ``data``."""
        return cls(f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}")


class Hasher:
    """Running digest of a stream."""

    def __init__(self, algorithm: str = "sha256") -> None:
        self.algorithm = algorithm
        self._state: Any = hashlib.new(algorithm)

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._state.update(data)

    def digest(self) -> Digest:
        """The digest of everything taken so far."""
        return Digest(f"{self.algorithm}:{self._state.hexdigest()}")
