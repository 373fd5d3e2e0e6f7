"""On whose behalf a request is made."""

from typing import NamedTuple


class Identity(NamedTuple):
    """A user, and the auth revision at which it was recognised: permissions may have changed since."""

    user: str
    revision: int


ANONYMOUS = Identity("", 0)
"""Nobody known. Enough while authentication is off."""

CLUSTER = Identity("", -1)
"""The cluster itself, which ends leases and raises alarms. No client can become it."""
