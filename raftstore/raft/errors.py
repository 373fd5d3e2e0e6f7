"""What the core refuses. Part of the room's tree, so that the edge's one table maps them.

::

    TooManyRequests     ── ProposalDropped
    FailedPrecondition  ── ConfChangeRefused
"""

from raftstore.errors import FailedPrecondition, TooManyRequests


class ProposalDropped(TooManyRequests):
    """The log holds as many bytes as allowed that no majority has confirmed, or leadership is being handed over."""


class ConfChangeRefused(FailedPrecondition):
    """The change of members is impossible now (one is under way) or at all; the message says which."""
