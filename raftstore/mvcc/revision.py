"""A revision of one key: the store's main revision, its place within that revision, and whether it is a deletion.

It is one integer, so that a million of them stay small and compare fast::

    main ... | sub 31 bits | tombstone 1 bit
"""

from struct import Struct
from typing import NewType

Rev = NewType("Rev", int)
"""A packed revision; ordered as (main, sub)."""

_KEY = Struct(">QcQ")


def pack(main: int, sub: int = 0, tombstone: bool = False) -> Rev:
    """The packed form. ``pack(n)`` is not above any revision of main ``n``; ``pack(n + 1)`` is above them all."""
    return Rev(main << 32 | sub << 1 | tombstone)


def main_of(rev: Rev) -> int:
    """The store revision that ``rev`` belongs to."""
    return rev >> 32


def is_tombstone(rev: Rev) -> bool:
    """Whether ``rev`` deleted its key."""
    return bool(rev & 1)


def to_key(rev: Rev) -> bytes:
    """The database key, etcd's own: main (8 bytes, big-endian), ``_``, sub (8 bytes), ``t`` for a tombstone."""
    key = _KEY.pack(rev >> 32, b"_", (rev & 0xFFFFFFFF) >> 1)
    return key + b"t" if rev & 1 else key


def from_key(key: bytes) -> Rev:
    """The inverse of ``to_key``."""
    main, _, sub = _KEY.unpack_from(key)
    return pack(main, sub, len(key) == 18)
