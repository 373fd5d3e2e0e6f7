"""A checksum of the history that follows every change: it does not matter in which order records came.

It is the sum of one hash per kept record, so a compaction takes out what it removes, and members that keep the same
records have the same checksum at any time without reading them again.
"""

from hashlib import blake2b

from raftstore.mvcc.revision import Rev, to_key

_MASK = (1 << 64) - 1


def of_record(rev: Rev, record: bytes) -> int:
    """The share of one record, 64 bits."""
    return int.from_bytes(blake2b(record, digest_size=8, key=to_key(rev)).digest(), "little")


def plus(digest: int, share: int) -> int:
    """The checksum with a record more."""
    return (digest + share) & _MASK


def minus(digest: int, share: int) -> int:
    """The checksum with a record less."""
    return (digest - share) & _MASK


def folded(digest: int) -> int:
    """The 32 bits that fit etcd's answers."""
    return (digest ^ digest >> 32) & 0xFFFFFFFF
