"""The registry as a service."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from cri_runtime.registry.app import Registry
from cri_runtime.registry.repositories import Repositories
from protos.serving import DRAIN_S

log = logging.getLogger(__name__)


class ListenError(OSError):
    """The address cannot be listened on; the text says which and what to do."""


def split_address(listen: str) -> tuple[str, int]:
    """``host:port``, also ``[::1]:port``. Raises ListenError."""
    host, colon, port = listen.removeprefix("http://").rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ListenError(f'"{listen}" is no address to listen on; write host:port, for instance 127.0.0.1:5000')
    return host.strip("[]") or "0.0.0.0", int(port)


@asynccontextmanager
async def running(root: Path, listen: str) -> AsyncIterator[str]:
    """A registry for the length of the block; the value is its ``host:port`` (port 0 picks a free one).

    Raises ListenError, OSError when ``root`` cannot be used. On the way out running requests may finish.
    """
    host, port = split_address(listen)
    repositories = await asyncio.to_thread(Repositories, root)
    runner = web.AppRunner(Registry(repositories).app(), access_log=None, shutdown_timeout=DRAIN_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as err:
            raise ListenError(
                f"cannot listen on {listen}: {err.strerror or err}; stop what holds it or choose another"
            ) from err
        bound_port = runner.addresses[0][1]
        yield f"[{host}]:{bound_port}" if ":" in host else f"{host}:{bound_port}"
    finally:
        await runner.cleanup()


async def serve(root: Path, listen: str) -> None:
    """Serve until cancelled, then drain. Ready when ``GET /v2/`` answers. Raises as :func:`running`."""
    async with running(root, listen) as address:
        log.info("serving", extra={"address": address, "root": str(root)})
        await asyncio.Event().wait()
