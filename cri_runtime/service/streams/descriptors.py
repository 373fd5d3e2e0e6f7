"""Reading and writing non-blocking file descriptors (pipes, terminals) from the event loop, one chunk at a time."""

import asyncio
import errno
import os

CHUNK_BYTES = 32 << 10


async def read_some(fd: int) -> bytes:
    """The next bytes; none at the end. A terminal whose last program has gone is at its end too."""
    while True:
        try:
            return os.read(fd, CHUNK_BYTES)
        except BlockingIOError:
            await _readable(fd)
        except OSError as err:
            if err.errno != errno.EIO:
                raise
            return b""


async def write_all(fd: int, data: bytes) -> None:
    """Write ``data``, waiting while nobody reads. Raises BrokenPipeError when nobody ever will."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await _writable(fd)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


async def _writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(fd, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_writer(fd)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
