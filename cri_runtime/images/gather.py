"""Running work together."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any


async def gather(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines together; the first to fail ends the others, and its own error is raised, not a group."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for coroutine in work:
                tasks.create_task(coroutine)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
