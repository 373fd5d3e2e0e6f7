"""Cut streams whose client asked for it when the leader is lost for long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from raftstore.errors import NoLeader
from raftstore.member import Member

_TIMEOUTS = 3
"""Election timeouts without a leader after which a stream is cut, as etcd does."""


@asynccontextmanager
async def while_led(member: Member) -> AsyncIterator[None]:
    """Run the block; raise NoLeader in its place once the member knew no leader for some election timeouts."""
    body = asyncio.current_task()
    assert body is not None
    lost = False

    async def guard() -> None:
        nonlocal lost
        missed = 0
        while missed < _TIMEOUTS:
            await asyncio.sleep(member.config.election_timeout_ms / 1000)
            missed = 0 if member.node.leader else missed + 1
        lost = True
        body.cancel()

    watching = asyncio.create_task(guard(), name="leader-guard")
    try:
        yield
    except asyncio.CancelledError:
        if not lost:
            raise
        body.uncancel()
        raise NoLeader("this member lost its leader") from None
    finally:
        watching.cancel()
