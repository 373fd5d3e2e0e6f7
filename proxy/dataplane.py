"""The control half's hold on the data plane's process: tells it the listeners, keeps it alive, knows how each fares.

Level-triggered: ``replace`` says what one service should have, and only differences are sent. A worker that died is
started again and told everything; the listeners it could not open are tried again when that may succeed.
"""

import asyncio
import itertools
import json
import logging
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from proxy.services import Listener

log = logging.getLogger(__name__)

RETRY_S, RETRY_S_MAX = 1.0, 60.0
"""First and longest pause before a listener whose address is taken is tried again, seconds."""

RESTART_S = 0.5
"""Pause before a worker that died is replaced, seconds."""

LINE_BYTES_MAX = 256 << 20
NO_ENDPOINTS = "no ready endpoints: connections are refused"


@dataclass
class Entry:
    """A wanted listener and its fate. ``error`` is empty while it is open, or about to be."""

    key: int
    listener: Listener
    error: str = ""
    sent: bool = False  # the worker was told to open it, and not to close it since
    retry_s: float = RETRY_S
    retry: asyncio.TimerHandle | None = None


@dataclass(frozen=True)
class BackendStatus:
    """One backend's counters. ``ready``: takes new connections; else it drains."""

    address: str
    port: int
    pod: str
    node: str
    ready: bool
    open: int
    total: int


@dataclass(frozen=True)
class ListenerStatus:
    """One listener as it is now."""

    listener: Listener
    error: str
    accepted: int = 0
    backends: list[BackendStatus] = field(default_factory=list)


class DataPlane:
    """The wanted listeners, by service. Use ``running``."""

    def __init__(self, on_address: Callable[[str, bool], None]) -> None:
        """``on_address(address, wanted)`` is called when the first listener of an address comes and the last goes."""
        self._on_address = on_address
        self._addresses: Counter[str] = Counter()
        self._services: dict[str, dict[tuple[str, str, int], Entry]] = {}
        self._entries: dict[int, Entry] = {}
        self._failing: dict[int, Entry] = {}  # those whose address is taken
        self._keys = itertools.count(1)
        self._writer: asyncio.StreamWriter | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._report: asyncio.Future[dict[str, Any]] | None = None
        self._stopping = False
        self.started = asyncio.Event()

    def replace(self, service: str, listeners: Iterable[Listener]) -> None:
        """Make ``listeners`` all that the service named by the key ``namespace/name`` has."""
        entries = self._services.setdefault(service, {})
        wanted = {listener.endpoint: listener for listener in listeners}
        for endpoint in entries.keys() - wanted.keys():
            self._drop(entries.pop(endpoint))
        for endpoint, listener in wanted.items():
            entry = entries.get(endpoint)
            if entry is None:
                self._add(entries, listener)
            elif entry.listener != listener:
                entry.listener = listener
                self._apply(entry)
        if not entries:
            del self._services[service]

    def services(self) -> set[str]:
        """The keys of the services that have listeners."""
        return set(self._services)

    async def status(self) -> list[ListenerStatus]:
        """Every wanted listener with its counters, in the order of service and address."""
        report = await self._ask_report()
        found = [_status(entry, report.get(str(entry.key))) for entry in self._entries.values()]
        return sorted(found, key=lambda s: (s.listener.namespace, s.listener.service, s.listener.endpoint))

    def _add(self, entries: dict[tuple[str, str, int], Entry], listener: Listener) -> None:
        entry = entries[listener.endpoint] = Entry(next(self._keys), listener)
        self._entries[entry.key] = entry
        self._addresses[listener.address] += 1
        if self._addresses[listener.address] == 1:
            self._on_address(listener.address, True)
        self._apply(entry)

    def _apply(self, entry: Entry) -> None:
        listener = entry.listener
        self._forget_retry(entry)
        if listener.protocol not in ("TCP", "UDP"):
            entry.error = f"{listener.protocol} is not served"
        elif not listener.backends:
            entry.error = NO_ENDPOINTS
            self._close(entry)
        else:
            entry.error = ""
            self._open(entry)

    def _open(self, entry: Entry) -> None:
        listener = entry.listener
        entry.sent = True
        self._send(
            op="open",
            id=entry.key,
            protocol=listener.protocol,
            address=listener.address,
            port=listener.port,
            backends=listener.backends,
            policy=listener.policy.value,
            affinity_s=listener.affinity_s,
            sources=listener.sources,
        )

    def _close(self, entry: Entry) -> None:
        entry.sent = False  # the message is sent in any case: an answer that crossed another may have misled us
        self._send(op="close", id=entry.key)
        for other in list(self._failing.values()):  # its address is free again: somebody may be waiting for it
            if other.listener.port == entry.listener.port:
                self._apply(other)

    def _drop(self, entry: Entry) -> None:
        self._forget_retry(entry)
        del self._entries[entry.key]
        self._close(entry)
        address = entry.listener.address
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]
            self._on_address(address, False)

    def _forget_retry(self, entry: Entry) -> None:
        self._failing.pop(entry.key, None)
        if entry.retry is not None:
            entry.retry.cancel()
            entry.retry = None

    def _failed(self, entry: Entry, cause: str) -> None:
        listener = entry.listener
        entry.error = f"cannot listen on {host_port(listener.address, listener.port)}: {cause}"
        facts = {"service": f"{listener.namespace}/{listener.service}", "cause": entry.error, "retry_s": entry.retry_s}
        log.warning("listener is not open", extra=facts)
        self._failing[entry.key] = entry
        entry.retry = asyncio.get_running_loop().call_later(entry.retry_s, self._retry, entry)
        entry.retry_s = min(entry.retry_s * 2, RETRY_S_MAX)

    def _retry(self, entry: Entry) -> None:
        self._forget_retry(entry)
        self._open(entry)

    def _on_message(self, message: dict[str, Any]) -> None:
        if "report" in message:
            if self._report is not None and not self._report.done():
                self._report.set_result(message["report"])
            return
        entry = self._entries.get(message["id"])
        if entry is None or not entry.sent:
            return
        if message["error"]:
            entry.sent = False
            self._failed(entry, message["error"])
        else:
            entry.error, entry.retry_s = "", RETRY_S

    def _send(self, **message: Any) -> None:
        if self._writer is not None:
            self._writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    async def _ask_report(self) -> dict[str, Any]:
        if self._writer is None:
            return {}
        if self._report is None or self._report.done():
            self._report = asyncio.get_running_loop().create_future()
            self._send(op="report")
        return await asyncio.shield(self._report)

    async def supervise(self) -> None:
        """Keep a worker running and listen to it, until cancelled or ``stop_accepting``."""
        while True:
            reader = await self._start_worker()
            await self._listen(reader)
            if self._stopping:
                return
            await self._bury_worker()
            await asyncio.sleep(RESTART_S)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                self._on_message(json.loads(line))
        except ConnectionError:
            pass  # it went while we were writing to it: as good as end of file

    async def _start_worker(self) -> asyncio.StreamReader:
        ours, theirs = socket.socketpair()
        with theirs:
            fd = str(theirs.fileno())
            command = (sys.executable, "-m", "proxy.worker", fd)
            self._process = await asyncio.create_subprocess_exec(*command, pass_fds=(theirs.fileno(),))
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=LINE_BYTES_MAX)
        log.info("data plane started", extra={"worker_pid": self._process.pid, "listeners": len(self._entries)})
        for entry in self._entries.values():
            entry.sent = False
            self._apply(entry)
        self.started.set()
        return reader

    async def _bury_worker(self) -> None:
        process, writer = self._process, self._writer
        self._process = self._writer = None
        if self._report is not None and not self._report.done():
            self._report.set_result({})
        if writer is not None:
            writer.close()
        if process is not None:
            code = await process.wait()
            log.error("data plane died, its connections are lost: starting another", extra={"exit_code": code})

    def stop_accepting(self, grace_s: float) -> None:
        """Close every listener now; what is connected has ``grace_s`` seconds to finish."""
        if self._stopping:
            return
        self._stopping = True
        self._send(op="drain", grace_s=grace_s)

    async def drained(self, grace_s: float) -> None:
        """Wait until the last connection has ended, or the time is up."""
        process, writer = self._process, self._writer
        if process is None or writer is None:
            return
        try:
            async with asyncio.timeout(grace_s + 2):
                await process.wait()
        except TimeoutError:
            log.error("data plane does not stop: killing it", extra={"worker_pid": process.pid})
            process.kill()
            await process.wait()
        writer.close()


@asynccontextmanager
async def running(grace_s: float, on_address: Callable[[str, bool], None]) -> AsyncIterator[DataPlane]:
    """A data plane for the length of the block; afterwards what is connected has ``grace_s`` seconds to finish."""
    plane = DataPlane(on_address)
    async with asyncio.TaskGroup() as tasks:
        supervisor = tasks.create_task(plane.supervise(), name="data-plane")
        try:
            await plane.started.wait()
            yield plane
        finally:
            plane.stop_accepting(grace_s)
            await plane.drained(grace_s)
            supervisor.cancel()


def host_port(address: str, port: int) -> str:
    """``address:port``, an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _status(entry: Entry, report: dict[str, Any] | None) -> ListenerStatus:
    if report is None:
        ready = [BackendStatus(b.address, b.port, b.pod, b.node, True, 0, 0) for b in entry.listener.backends]
        return ListenerStatus(entry.listener, entry.error, 0, ready)
    backends = [BackendStatus(*backend) for backend in report["backends"]]
    return ListenerStatus(entry.listener, entry.error, report["accepted"], backends)
