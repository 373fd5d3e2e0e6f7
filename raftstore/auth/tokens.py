"""Tokens that stand for a password on later calls: simple ones, remembered by every member; JWTs are in ``jwt.py``."""

import secrets
import string
from collections.abc import Callable
from typing import Protocol

from raftstore.auth.identity import Identity

SIMPLE_TTL_S = 300.0
"""A simple token dies when it was not used for so long, seconds."""

_LETTERS = string.ascii_letters
_RANDOM_LETTERS = 16


class Tokens(Protocol):
    """A way to make and to recognise tokens."""

    def issue(self, user: str, auth_revision: int) -> str | None:
        """A finished token, or None if it must go through the log to be known to all members."""

    def register(self, user: str, random_part: str, index: int) -> str:
        """The token that the log entry ``index`` makes, known from now on."""

    def recognise(self, token: str, auth_revision: int) -> Identity | None:
        """Whose token it is; None if it is unknown or has expired."""

    def forget_user(self, user: str) -> None:
        """The user's tokens hold no more."""

    def clear(self) -> None:
        """No token holds any more."""


def random_part() -> str:
    """The part of a simple token that cannot be guessed."""
    return "".join(secrets.choice(_LETTERS) for _ in range(_RANDOM_LETTERS))


class SimpleTokens:
    """``<16 letters>.<log index>``, in the memory of every member; a restart forgets them and clients log in again."""

    def __init__(self, clock: Callable[[], float], ttl_s: float = SIMPLE_TTL_S) -> None:
        """``clock`` counts seconds, only upwards."""
        self._clock = clock
        self._ttl_s = ttl_s
        self._users: dict[str, str] = {}
        self._ends: dict[str, float] = {}

    def issue(self, user: str, auth_revision: int) -> str | None:
        """See Tokens."""
        return None

    def register(self, user: str, random_part: str, index: int) -> str:
        """See Tokens."""
        self._drop_expired()
        token = f"{random_part}.{index}"
        self._users[token] = user
        self._ends[token] = self._clock() + self._ttl_s
        return token

    def recognise(self, token: str, auth_revision: int) -> Identity | None:
        """See Tokens. Use keeps it alive. It has always seen the latest auth revision."""
        user = self._users.get(token)
        if user is None or self._ends[token] <= self._clock():
            return None
        del self._ends[token]  # so that the order is that of the ends
        self._ends[token] = self._clock() + self._ttl_s
        return Identity(user, auth_revision)

    def forget_user(self, user: str) -> None:
        """See Tokens."""
        for token in [token for token, owner in self._users.items() if owner == user]:
            del self._users[token], self._ends[token]

    def clear(self) -> None:
        """See Tokens."""
        self._users.clear()
        self._ends.clear()

    def _drop_expired(self) -> None:
        now = self._clock()
        for token, end in list(self._ends.items()):
            if end > now:
                return
            del self._users[token], self._ends[token]
