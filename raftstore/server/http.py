"""What a member answers over plain HTTP: metrics, health, version. The client port speaks gRPC only."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from aiohttp import web

from protos.etcd import rpc_pb2 as pb
from raftstore.errors import EtcdError
from raftstore.member import Member
from raftstore.metrics import Text
from raftstore.server.maintenance import ETCD_VERSION


@asynccontextmanager
async def serving_http(member: Member, url: str) -> AsyncIterator[None]:
    """Serve on ``url`` for the length of the block."""
    app = web.Application()
    pages = Pages(member)
    app.add_routes(
        [
            web.get("/metrics", pages.metrics),
            web.get("/health", pages.health),
            web.get("/livez", pages.livez),
            web.get("/readyz", pages.readyz),
            web.get("/version", pages.version),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        parts = urlsplit(url)
        await web.TCPSite(runner, parts.hostname, parts.port).start()
        yield
    finally:
        await runner.cleanup()


class Pages:
    """One method per path."""

    def __init__(self, member: Member) -> None:
        self._member = member

    async def health(self, request: web.Request) -> web.Response:
        """etcd's one-word health. ``?exclude=NOSPACE`` ignores an alarm, ``?serializable=true`` asks no leader."""
        reason = self._alarm(request.query.getall("exclude", []))
        if not reason:
            reason = await self._unready(request.query.get("serializable") == "true")
        return web.json_response({"health": "false" if reason else "true", "reason": reason}, status=_status(reason))

    async def livez(self, request: web.Request) -> web.Response:
        """Whether this process works."""
        return web.Response(text="ok\n")

    async def readyz(self, request: web.Request) -> web.Response:
        """Whether it can answer a linearizable read now."""
        reason = await self._unready(False)
        return web.Response(text=f"{reason or 'ok'}\n", status=_status(reason))

    async def version(self, request: web.Request) -> web.Response:
        """The etcd release whose behaviour this is."""
        minor = ETCD_VERSION.rpartition(".")[0] + ".0"
        return web.json_response({"etcdserver": ETCD_VERSION, "etcdcluster": minor, "storage": minor})

    async def metrics(self, request: web.Request) -> web.Response:
        """Prometheus' text format."""
        return web.Response(text=render(self._member), headers={"Content-Type": "text/plain; version=0.0.4"})

    def _alarm(self, excluded: list[str]) -> str:
        for alarm in self._member.machine.alarm_members():
            name = pb.AlarmType.Name(alarm.alarm)
            if name not in excluded:
                return f"ALARM {name}"
        return ""

    async def _unready(self, serializable: bool) -> str:
        if serializable:
            return ""
        if not self._member.node.leader:
            return "RAFT NO LEADER"
        try:
            await self._member.linearize()
        except EtcdError as err:
            return f"RANGE ERROR:{err}"
        return ""


def _status(reason: str) -> int:
    return 503 if reason else 200


def render(member: Member) -> str:
    """The page of metrics."""
    text = Text()
    machine, store, node = member.machine, member.store, member.node
    size, used = member.backend.size_bytes()
    id = f"{member.id:x}"
    text.gauge("etcd_server_id", "This member.", 1, server_id=id)
    text.gauge("etcd_server_version", "The etcd release it behaves like.", 1, server_version=ETCD_VERSION)
    text.gauge("etcd_server_has_leader", "Whether it knows a leader.", int(bool(node.leader)))
    text.gauge("etcd_server_is_leader", "Whether it leads.", int(member.leads))
    text.gauge("etcd_server_proposals_committed_total", "Committed log entries.", node.log.committed)
    text.gauge("etcd_server_proposals_applied_total", "Applied log entries.", machine.applied_index)
    text.gauge("etcd_server_proposals_pending", "Writes under way.", member.pending_proposals)
    text.counter("etcd_server_proposals_failed_total", "Writes without an answer.", member.failed_proposals)
    text.gauge("etcd_server_quota_backend_bytes", "The space quota.", member.config.quota_backend_bytes)
    text.gauge("etcd_mvcc_db_total_size_in_bytes", "The database file.", size)
    text.gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "What of it holds data.", used)
    text.gauge("etcd_debugging_mvcc_keys_total", "Keys, deleted ones until compaction.", store.index.count())
    text.gauge("etcd_debugging_mvcc_current_revision", "The store's revision.", store.revision)
    text.gauge("etcd_debugging_mvcc_compact_revision", "The oldest readable revision.", store.compact_revision)
    text.gauge("etcd_debugging_mvcc_watcher_total", "Watchers that are current.", member.watches.count())
    text.gauge("etcd_debugging_lease_total", "Leases.", len(machine.lessor.leases))
    text.gauge("etcd_debugging_auth_revision", "The auth revision.", machine.auth.revision)
    text.histogram("etcd_disk_wal_fsync_duration_seconds", "Synchronised writes to the log.", member.log_durations)
    text.histogram(
        "etcd_disk_backend_commit_duration_seconds", "Checkpoints of the database.", member.backend.commit_durations
    )
    text.process()
    return text.render()
