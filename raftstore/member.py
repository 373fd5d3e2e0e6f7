"""The shell around the core: one member with its disk, clock and clients' requests.

It is the only place where the consensus core meets threads and time. Three threads: the event loop, on which all state
lives; one that owns the log (one fdatasync per batch of proposals: while it waits for the disk, the next batch
gathers); one that writes the database. Acknowledged means durable: a proposal is applied, and its proposer answered,
only after the log is on disk.
"""

import asyncio
import fcntl
import logging
import os
import random
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from protos.etcd import rpc_pb2 as pb
from raftstore import command, limits
from raftstore.auth.identity import ANONYMOUS, CLUSTER, Identity
from raftstore.command import Kind
from raftstore.config import Config
from raftstore.errors import (
    DiskFull,
    EtcdError,
    InvariantBroken,
    LeaseNotFound,
    NoLeader,
    RequestTimeout,
    Stopped,
    StorageError,
    TooLarge,
    TooManyRequests,
)
from raftstore.lease import Deadlines, due_checkpoints
from raftstore.machine import Machine
from raftstore.metrics import Histogram
from raftstore.mvcc.backend import Backend
from raftstore.mvcc.store import Event
from raftstore.raft.log import RaftLog
from raftstore.raft.node import Config as NodeConfig
from raftstore.raft.node import Node
from raftstore.raft.types import Entry
from raftstore.wal.fs import OSFS, sync_directory
from raftstore.wal.wal import Identity as LogOwner
from raftstore.wal.wal import Wal
from raftstore.watch import WatchHub

log = logging.getLogger(__name__)

T = TypeVar("T")

_MAP_HEADROOM_BYTES = 1 << 30


class _Waiter:
    """A proposal of this member that has not been applied yet."""

    __slots__ = ("deadline", "future", "kind", "request", "who")

    def __init__(self, kind: Kind, request: Any, who: Identity, future: "asyncio.Future[Any]", deadline: float) -> None:
        self.kind = kind
        self.who = who
        self.request = request
        self.future = future
        self.deadline = deadline


@asynccontextmanager
async def open_member(config: Config) -> AsyncIterator["Member"]:
    """A running member for the length of the block. Raises StorageError when its files cannot be used.

    If it fails meanwhile, the block is cancelled and the failure raised (in an exception group).
    """
    with ExitStack() as resources:
        member = await asyncio.to_thread(Member, config, resources)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(member.run(), name="member")
            try:
                await member.ready()
                yield member
            finally:
                running.cancel()


class Member:
    """One member of the cluster: proposes, applies, answers."""

    def __init__(self, config: Config, resources: ExitStack) -> None:
        """Recover from ``config.data_dir``; blocks. ``resources`` closes what is opened, after ``run`` has ended."""
        self.config = config
        directory = _lock_directory(config.data_dir, resources)
        self._wal = Wal(OSFS(), directory / "wal", LogOwner(config.cluster_id(), config.member_id(config.name)))
        resources.callback(self._wal.close)
        self.cluster_id, self.id = self._wal.identity
        self.backend = Backend(directory / "db", 2 * config.quota_backend_bytes + _MAP_HEADROOM_BYTES)
        resources.callback(self.backend.close)
        for created in (directory / "db", directory, config.data_dir):
            sync_directory(created)
        # Entered last, so that each finishes its work before the files it works on are closed.
        self._log_thread = resources.enter_context(ThreadPoolExecutor(1, "raft-log"))
        self._storage_thread = resources.enter_context(ThreadPoolExecutor(1, "storage"))
        self.tokens = config.tokens()
        self.machine = Machine(self.backend, self.tokens)
        self.store, self.lessor = self.machine.store, self.machine.lessor
        self.watches = WatchHub(self.store)
        self.deadlines = Deadlines()
        self.node = self._recover_node()
        self._waiting: dict[int, _Waiter] = {}
        self._next_id = random.getrandbits(63)
        self._wake = asyncio.Event()
        self._dirty = asyncio.Event()
        self._full = asyncio.Event()
        self._leases_changed = asyncio.Event()
        self._led = asyncio.Event()
        self._stopping = False
        self._checkpoint_waiters: list[asyncio.Future[None]] = []
        self.failed_proposals = 0
        self._failure: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def _recover_node(self) -> Node:
        applied = (self.machine.applied_index, self.machine.applied_term)
        state, entries = self._wal.recovered
        entries = [entry for entry in entries if entry.index > applied[0]]
        first = entries[0].index if entries else applied[0] + 1
        if first != applied[0] + 1 or self._wal.last_index < applied[0]:
            raise StorageError(
                f"{self.config.data_dir}: the database holds the log up to {applied[0]}, but the log has "
                f"[{first}, {self._wal.last_index}]: they are not of one member; restore both from one backup"
            )
        raft_log = RaftLog(applied, entries, state.commit)
        return Node(NodeConfig(self.id, frozenset([self.id])), raft_log, state)

    # -- running -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until cancelled. A failure of the disk ends it with StorageError."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch_failure(), name="failure")
                tasks.create_task(self._drive_core(), name="raft-core")
                tasks.create_task(self._checkpoint_repeatedly(), name="checkpoints")
                tasks.create_task(self._expire_leases(), name="lease-expiry")
                tasks.create_task(self._checkpoint_leases(), name="lease-checkpoints")
        finally:
            self._stopping = True
            if self._timer is not None:
                self._timer.cancel()
            for waiter in self._waiting.values():
                if not waiter.future.done():
                    waiter.future.set_exception(Stopped("the member stopped"))

    def fail(self, err: BaseException) -> None:
        """Stop the member because of ``err``, found where only a request would have heard of it."""
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(err)

    async def _watch_failure(self) -> None:
        self._failure = asyncio.get_running_loop().create_future()
        await self._failure

    async def ready(self) -> None:
        """Wait until the member leads and has applied all it recovered."""
        await self._led.wait()

    async def _drive_core(self) -> None:
        self.node.campaign()  # a lone voter need not wait for an election timeout
        while True:
            while self.node.has_ready():
                ready = self.node.ready()
                self._apply(ready.committed)
                if ready.entries or ready.hard_state is not None:
                    await self._until_room(self._log_thread, self._wal.append, ready.hard_state, ready.entries)
                self.node.advance(ready)
            self._wake.clear()
            await self._wake.wait()

    async def _in_thread(self, thread: ThreadPoolExecutor, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, work, *args)

    async def _until_room(self, thread: ThreadPoolExecutor, work: Callable[..., T], *args: Any) -> T:
        """Do blocking work, again and again while the disk is full: reads go on, writes wait and time out."""
        while True:
            try:
                return await self._in_thread(thread, work, *args)
            except DiskFull as err:
                log.error("no room on the disk: writes wait", extra={"cause": str(err)})
            await asyncio.sleep(limits.DISK_FULL_RETRY_S)

    # -- requests ------------------------------------------------------------------------------------------------

    async def propose(self, kind: Kind, request: Any, who: Identity = ANONYMOUS) -> Any:
        """Have the cluster apply ``request`` on behalf of ``who``; returns the response with its header.

        Raises the refusal, TooLarge, TooManyRequests, or Unavailable when it is unknown whether it happened.
        """
        if self._stopping:
            raise Stopped("the member is stopping")
        if len(self._waiting) >= limits.PROPOSALS_MAX:
            raise TooManyRequests(f"{limits.PROPOSALS_MAX} writes are under way")
        id = self._next_id = (self._next_id + 1) & 0xFFFFFFFFFFFFFFFF
        data = command.encode(kind, id, request, who)
        if len(data) > self.config.max_request_bytes:
            raise TooLarge(f"{len(data)} bytes, {self.config.max_request_bytes} are allowed")
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self.node.propose([data])
        self._waiting[id] = _Waiter(kind, request, who, future, loop.time() + self.config.request_timeout_s)
        if self._timer is None:
            self._timer = loop.call_later(self.config.request_timeout_s, self._time_out)
        self._wake.set()
        return await future

    def _time_out(self) -> None:
        """Give up on the oldest proposals. One timer serves all, since all wait equally long."""
        loop = asyncio.get_running_loop()
        self._timer = None
        for id, waiter in list(self._waiting.items()):
            if waiter.deadline > loop.time():
                self._timer = loop.call_at(waiter.deadline, self._time_out)
                return
            del self._waiting[id]
            self.failed_proposals += 1
            _answer(waiter.future, RequestTimeout("the log did not take the write in time"))

    async def linearize(self) -> None:
        """Return once all that was acknowledged before the call is applied here. Raises NoLeader."""
        index = self.node.read_index()
        if index is None:
            raise NoLeader("this member knows no leader")
        # One voter applies in the same step in which it commits, so there is nothing to wait for.
        if self.machine.applied_index < index:  # node.log.applied follows only after the next write to the log
            raise InvariantBroken(f"read index {index} is applied")

    @property
    def leads(self) -> bool:
        """Whether this member is the leader, as far as it knows."""
        return self.node.leader == self.id

    @property
    def pending_proposals(self) -> int:
        """Writes of this member that are under way."""
        return len(self._waiting)

    @property
    def log_durations(self) -> Histogram:
        """How long synchronised writes to the log take."""
        return self._wal.sync_durations

    def header(self, revision: int | None = None) -> pb.ResponseHeader:
        """The header of a response by this member; ``revision`` None stands for the present one."""
        return pb.ResponseHeader(
            cluster_id=self.cluster_id,
            member_id=self.id,
            raft_term=self.node.term,
            revision=self.store.revision if revision is None else revision,
        )

    # -- applying ------------------------------------------------------------------------------------------------

    def _apply(self, entries: Sequence[Entry]) -> None:
        """Apply a batch; then watchers hear of it, then proposers."""
        if not entries:
            return
        events: list[Event] = []
        answers: list[tuple[_Waiter, Any]] = []
        for entry in entries:
            if not entry.data:
                self.machine.note_applied(entry.index, entry.term)
                self._began_term(entry.term)
                continue
            waiter, outcome = self._apply_command(entry, events)
            if waiter is not None:
                answers.append((waiter, outcome))
        if events:
            self.watches.publish(events)
        for waiter, outcome in answers:
            _answer(waiter.future, outcome)
        self._note_dirty()

    def _apply_command(self, entry: Entry, events: list[Event]) -> tuple[_Waiter | None, Any]:
        waiter = self._waiting.pop(command.id_of(entry.data), None)
        if waiter is not None:
            kind, request, who = waiter.kind, waiter.request, waiter.who
        else:
            kind, _, request, who = command.decode(entry.data)
        outcome, happened = self.machine.apply(entry.index, entry.term, kind, request, who)
        events += happened
        if isinstance(outcome, EtcdError):
            return waiter, outcome
        self._note_lease(kind, outcome, request)
        header = outcome.header
        header.cluster_id, header.member_id, header.raft_term = self.cluster_id, self.id, self.node.term
        return waiter, outcome

    def _note_dirty(self) -> None:
        self._dirty.set()
        if self.backend.pending_bytes >= limits.CHECKPOINT_BYTES:
            self._full.set()

    def _began_term(self, term: int) -> None:
        """This member's own first entry of its term is applied: it leads."""
        if term != self.node.term:
            return
        now = asyncio.get_running_loop().time()
        grace_s = self.config.election_timeout_ms / 1000
        for lease in self.lessor.leases.values():
            self.deadlines.renew(lease.id, (lease.remaining_s or lease.ttl_s) + grace_s, now)
        self._leases_changed.set()
        self._led.set()
        log.info("became leader", extra={"member": f"{self.id:x}", "term": term})

    # -- checkpoints ---------------------------------------------------------------------------------------------

    async def checkpoint(self) -> None:
        """Return once all that is applied now is in the database and the log before it is dropped."""
        stored = asyncio.get_running_loop().create_future()
        self._checkpoint_waiters.append(stored)
        self._dirty.set()
        self._full.set()
        await stored

    async def _checkpoint_repeatedly(self) -> None:
        while True:
            await self._dirty.wait()
            try:
                async with asyncio.timeout(limits.CHECKPOINT_INTERVAL_S):
                    await self._full.wait()
            except TimeoutError:
                pass
            self._dirty.clear()
            self._full.clear()
            waiters, self._checkpoint_waiters = self._checkpoint_waiters, []
            await self._write_checkpoint()
            for waiter in waiters:
                _answer(waiter, None)

    async def _write_checkpoint(self) -> None:
        index = self.machine.applied_index
        self.machine.before_checkpoint()
        taken = self.backend.take_checkpoint()
        await self._until_room(self._storage_thread, self.backend.write, taken)
        self.backend.finish_checkpoint()
        self.node.log.compact(min(index, self.node.log.applied))
        await self._in_thread(self._log_thread, self._wal.trim, index)
        log.debug("wrote a checkpoint", extra={"applied": index, "records": len(taken.records)})
        await self._watch_quota()

    async def _watch_quota(self) -> None:
        """Raise the alarm that makes every member refuse writes, once the data outgrow the quota."""
        _, used_bytes = self.backend.size_bytes()
        if used_bytes <= self.config.quota_backend_bytes or (self.id, pb.NOSPACE) in self.machine.alarms:
            return
        log.error(
            "the data outgrow --quota-backend-bytes: writes are refused until keys are deleted, history is "
            "compacted and the alarm disarmed",
            extra={"bytes": used_bytes},
        )
        alarm = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=self.id, alarm=pb.NOSPACE)
        await self.propose(Kind.ALARM, alarm, CLUSTER)

    # -- leases --------------------------------------------------------------------------------------------------

    def _note_lease(self, kind: Kind, outcome: Any, request: Any) -> None:
        if kind is Kind.LEASE_GRANT and self._led.is_set():
            self.deadlines.renew(outcome.ID, outcome.TTL, asyncio.get_running_loop().time())
            self._leases_changed.set()
        elif kind is Kind.LEASE_REVOKE:
            self.deadlines.forget(request.ID)

    def renew_lease(self, id: int) -> int:
        """Restart the lease's full TTL; returns it, in seconds. Raises LeaseNotFound, also for an expired one."""
        lease = self.lessor.get(id)
        self.remaining_s(id)
        self.deadlines.renew(id, lease.ttl_s, asyncio.get_running_loop().time())
        return lease.ttl_s

    def remaining_s(self, id: int) -> float:
        """Seconds the lease has left. Raises LeaseNotFound, also for an expired one that is about to be revoked."""
        remaining_s = self.deadlines.remaining_s(id, asyncio.get_running_loop().time())
        if remaining_s <= 0:
            raise LeaseNotFound(f"lease {id:x} has expired")
        return remaining_s

    async def _expire_leases(self) -> None:
        """Turn every expiry into a revocation through the log."""
        loop = asyncio.get_running_loop()
        while True:
            self._leases_changed.clear()
            try:
                async with asyncio.timeout_at(self.deadlines.next_end()):
                    await self._leases_changed.wait()
            except TimeoutError:
                pass
            for id in self.deadlines.expired(loop.time()):
                await self._revoke_expired(id)

    async def _checkpoint_leases(self) -> None:
        """Let the other members know how much of long leases is left, so that a new leader does not begin anew."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(limits.LEASE_CHECKPOINT_INTERVAL_S)
            due = due_checkpoints(self.lessor, self.deadlines, loop.time())
            for start in range(0, len(due), limits.LEASE_CHECKPOINTS_MAX):
                some = due[start : start + limits.LEASE_CHECKPOINTS_MAX]
                try:
                    await self.propose(Kind.LEASE_CHECKPOINT, pb.LeaseCheckpointRequest(checkpoints=some), CLUSTER)
                except EtcdError as err:
                    log.info("lease checkpoint missed", extra={"cause": str(err)})

    async def _revoke_expired(self, id: int) -> None:
        try:
            await self.propose(Kind.LEASE_REVOKE, pb.LeaseRevokeRequest(ID=id), CLUSTER)
            log.info("revoked an expired lease", extra={"lease": f"{id:x}"})
        except LeaseNotFound:
            pass  # its owner was faster
        except EtcdError as err:
            log.warning("cannot revoke an expired lease yet", extra={"lease": f"{id:x}", "cause": str(err)})
            self.deadlines.renew(id, 1.0, asyncio.get_running_loop().time())


def _answer(future: "asyncio.Future[Any]", outcome: Any) -> None:
    if future.done():
        return  # the proposer gave up waiting
    if isinstance(outcome, EtcdError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _lock_directory(data_dir: Path, resources: ExitStack) -> Path:
    """Make ``data_dir/member`` and take it for this process alone. Raises StorageError."""
    directory = data_dir / "member"
    if (directory / "snap").exists():
        raise StorageError(
            f"--data-dir {data_dir} belongs to etcd, whose files this store cannot read: start with an empty directory "
            f"and copy from the running etcd with etcdctl make-mirror"
        )
    try:
        for part in ("wal", "db"):
            (directory / part).mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(directory / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as err:
        raise StorageError(f"cannot use --data-dir {data_dir}: {err.strerror}") from err
    resources.callback(os.close, fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        raise StorageError(f"--data-dir {data_dir} is in use by another process: stop it or choose another") from err
    return directory
