"""Streaming what happens during a transfer or build, to clients that may be slower than it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc

from protos.knarr import images_pb2 as pb

Offer = Callable[[pb.Progress], None]


class _Latest:
    """A mailbox with a bounded size: of each blob only the newest state waits; lines of text all do."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, int], pb.Progress] = {}
        self._changed = asyncio.Event()
        self._closed = False
        self._lines = 0

    def offer(self, progress: pb.Progress) -> None:
        """Leave a message."""
        self._lines += bool(progress.text)
        self._waiting[progress.id, self._lines if progress.text else 0] = progress
        self._changed.set()

    def close(self) -> None:
        """No more will come."""
        self._closed = True
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[pb.Progress]:
        while True:
            await self._changed.wait()
            self._changed.clear()
            waiting, self._waiting = self._waiting, {}
            for progress in waiting.values():
                yield progress
            if self._closed and not self._waiting:
                return


async def stream_progress(context: grpc.aio.ServicerContext, operation: Callable[[Offer], Awaitable[str]]) -> None:
    """Run an operation, write what it offers, and at the end a message with its result.

    Its error is raised as it is. The client's going away cancels it.
    """
    mailbox = _Latest()

    async def work() -> str:
        try:
            return await operation(mailbox.offer)
        finally:
            mailbox.close()

    try:
        async with asyncio.TaskGroup() as tasks:
            worker = tasks.create_task(work())
            async for progress in mailbox:
                await context.write(progress)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    await context.write(pb.Progress(status="done", result=worker.result()))
