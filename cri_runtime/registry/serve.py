"""The registry as a service."""

import asyncio
import logging
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from cri_runtime.images.hosts import Endpoint, Registries
from cri_runtime.images.remote import Session
from cri_runtime.registry.app import Registry
from cri_runtime.registry.collect import Collector, Policy
from cri_runtime.registry.mirror import Mirror
from cri_runtime.registry.repositories import Repositories
from cri_runtime.registry.users import load_users
from protos.process import DRAIN_S

log = logging.getLogger(__name__)


class ListenError(OSError):
    """The address cannot be listened on; the text says which and what to do."""


class CertificateError(OSError):
    """Certificate and key cannot be used; the text names them."""


@dataclass(frozen=True)
class Options:
    """How a registry serves, beyond where."""

    certificate: Path | None = None
    """PEM, with its chain; with ``key``: serve TLS."""
    key: Path | None = None
    users: Path | None = None
    """Serve only these; see :mod:`.users`."""
    mirror: str = ""
    """URL of the upstream registry."""
    registries: Registries = field(default_factory=Registries)
    """Login and CA of the upstream."""
    collect: Policy = field(default_factory=Policy)


def split_address(listen: str) -> tuple[str, int]:
    """``host:port``, also ``[::1]:port``. Raises ListenError."""
    host, colon, port = listen.removeprefix("http://").rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ListenError(f'"{listen}" is no address to listen on; write host:port, for instance 127.0.0.1:5000')
    return host.strip("[]") or "0.0.0.0", int(port)


@asynccontextmanager
async def running(root: Path, listen: str, options: Options | None = None) -> AsyncIterator[str]:
    """A registry for the length of the block; the value is its ``host:port`` (port 0 picks a free one).

    Raises ListenError, CertificateError, UsersFileError, OSError when ``root`` cannot be used. On the way out running
    requests may finish.
    """
    async with opened(root, listen, options or Options()) as (address, _):
        yield address


@asynccontextmanager
async def opened(root: Path, listen: str, options: Options) -> AsyncIterator[tuple[str, Collector]]:
    """The same, with the collector of its garbage."""
    host, port = split_address(listen)
    tls = _tls(options)
    users = load_users(options.users) if options.users else None
    repositories = await asyncio.to_thread(Repositories, root)
    collector = Collector(repositories, options.collect)
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(_children())
        mirror = None
        if options.mirror:
            session = await stack.enter_async_context(Session())
            mirror = Mirror(repositories, session, upstream(options), tasks)
        runner = web.AppRunner(Registry(repositories, users, mirror).app(), access_log=None, shutdown_timeout=DRAIN_S)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        try:
            await web.TCPSite(runner, host, port, ssl_context=tls).start()
        except OSError as err:
            raise ListenError(
                f"cannot listen on {listen}: {err.strerror or err}; stop what holds it or choose another"
            ) from err
        tasks.create_task(collector.run(), name="collector")
        bound_port = runner.addresses[0][1]
        yield f"[{host}]:{bound_port}" if ":" in host else f"{host}:{bound_port}", collector


@asynccontextmanager
async def _children() -> AsyncIterator[asyncio.TaskGroup]:
    """A group whose tasks end with the block, and whose failure ends the block."""
    ready: asyncio.Future[asyncio.TaskGroup] = asyncio.get_running_loop().create_future()

    async def parent() -> None:
        async with asyncio.TaskGroup() as children:
            ready.set_result(children)
            await asyncio.Event().wait()

    try:
        async with asyncio.TaskGroup() as outer:
            task = outer.create_task(parent(), name="registry-children")
            try:
                yield await ready
            finally:
                task.cancel()
    except BaseExceptionGroup as group:  # the block's own failure, not a group, is what its caller knows
        raise group.exceptions[0] from None


def upstream(options: Options) -> Endpoint:
    """Where the mirrored registry is. Raises RegistriesFileError for a CA file that cannot be read."""
    url = options.mirror.rstrip("/")
    host = urlsplit(url).netloc
    return replace(options.registries.endpoints(host)[-1], url=url)


def _tls(options: Options) -> ssl.SSLContext | None:
    if options.certificate is None or options.key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(options.certificate, options.key)
    except OSError as err:  # ssl.SSLError is one
        raise CertificateError(f"cannot serve with {options.certificate} and {options.key}: {err}") from err
    return context


async def serve(root: Path, listen: str, options: Options | None = None) -> None:
    """Serve until cancelled, then drain. Ready when ``GET /v2/`` answers. SIGUSR1 collects garbage now.

    Raises as :func:`running`.
    """
    wanted = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, wanted.set)
    async with opened(root, listen, options or Options()) as (address, collector):
        log.info("serving", extra={"address": address, "root": str(root)})
        while True:
            await wanted.wait()
            wanted.clear()
            await collector.collect()
