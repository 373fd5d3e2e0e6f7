"""etcdserverpb.Maintenance: status, alarms, hashes."""

import asyncio
import hashlib
import os
import re
import tempfile
from collections.abc import AsyncIterator, Iterator

import grpc

from protos.etcd import rpc_pb2 as pb
from protos.etcd import rpc_pb2_grpc as rpc
from protos.serving import unimplemented
from raftstore import snapshot
from raftstore.command import Kind
from raftstore.errors import BadLeaderTransferee, DowngradeTargetFormat, EtcdError, InvalidDowngradeTarget, NoDowngrade
from raftstore.member import Member
from raftstore.server.calls import unary
from raftstore.server.errors import refuse
from raftstore.server.identity import identify

ETCD_VERSION = "3.6.0"
"""The etcd release whose behaviour this server promises; clients choose features by it."""


_PIECE_BYTES = 32 * 1024
_VERSION = re.compile(r"\d+\.\d+(\.\d+)?")


@unimplemented
class Maintenance(rpc.MaintenanceServicer):
    """Looking after one member."""

    def __init__(self, member: Member) -> None:
        self._member = member

    @unary
    async def Status(self, request: pb.StatusRequest, context: grpc.aio.ServicerContext) -> pb.StatusResponse:
        """How this member is."""
        member = self._member
        member.machine.auth.check_known(identify(member, context))
        size, used = member.backend.size_bytes()
        return pb.StatusResponse(
            header=member.header(),
            version=ETCD_VERSION,
            dbSize=size,
            dbSizeInUse=used,
            dbSizeQuota=member.config.quota_backend_bytes,
            leader=member.node.leader,
            raftIndex=member.node.log.committed,
            raftTerm=member.node.term,
            raftAppliedIndex=member.machine.applied_index,
            storageVersion=ETCD_VERSION,
            errors=[
                f"memberID:{alarm.memberID} alarm:{pb.AlarmType.Name(alarm.alarm)}"
                for alarm in member.machine.alarm_members()
            ],
        )

    @unary
    async def Alarm(self, request: pb.AlarmRequest, context: grpc.aio.ServicerContext) -> pb.AlarmResponse:
        """List, raise or clear alarms."""
        if request.action != pb.AlarmRequest.GET:
            return await self._member.propose(Kind.ALARM, request, identify(self._member, context))
        self._member.machine.auth.check_known(identify(self._member, context))
        alarms = self._member.machine.alarm_members(request.memberID, request.alarm)
        return pb.AlarmResponse(header=self._member.header(), alarms=alarms)

    @unary
    async def Defragment(
        self, request: pb.DefragmentRequest, context: grpc.aio.ServicerContext
    ) -> pb.DefragmentResponse:
        """Nothing to do: the database reuses free pages by itself. Writes a checkpoint and answers."""
        self._check_admin(context)
        await self._member.checkpoint()
        return pb.DefragmentResponse()

    @unary
    async def Hash(self, request: pb.HashRequest, context: grpc.aio.ServicerContext) -> pb.HashResponse:
        """A checksum of the whole present history; for tests."""
        self._check_admin(context)
        hashed = self._member.store.hash_at(self._member.store.revision)
        return pb.HashResponse(header=self._member.header(), hash=hashed)

    @unary
    async def HashKV(self, request: pb.HashKVRequest, context: grpc.aio.ServicerContext) -> pb.HashKVResponse:
        """A checksum of the history up to a revision: equal on members that are equal."""
        self._check_admin(context)
        store = self._member.store
        store.check_revision(request.revision)
        revision = request.revision or store.revision
        return pb.HashKVResponse(
            header=self._member.header(),
            hash=store.hash_at(revision),
            compact_revision=store.compact_revision,
            hash_revision=revision,
        )

    async def Snapshot(
        self, request: pb.SnapshotRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.SnapshotResponse]:
        """The database of all that is applied now, in pieces, then the SHA-256 of it."""
        try:
            self._check_admin(context)
            await self._member.checkpoint()
            with tempfile.TemporaryFile(dir=self._member.config.data_dir) as file:
                await asyncio.to_thread(snapshot.copy, self._member.backend, file.fileno())
                for response in _pieces(file.fileno()):
                    yield response
        except EtcdError as err:
            await refuse(context, err)
        except OSError as err:  # no room for the copy, say: the store itself is well
            await context.abort(grpc.StatusCode.UNKNOWN, f"etcdserver: cannot make a snapshot: {err}")

    @unary
    async def Downgrade(self, request: pb.DowngradeRequest, context: grpc.aio.ServicerContext) -> pb.DowngradeResponse:
        """There is no older version of this store to go down to: every target is refused in etcd's words."""
        self._check_admin(context)
        if request.action == pb.DowngradeRequest.CANCEL:
            raise NoDowngrade("no downgrade is under way")
        if not _VERSION.fullmatch(request.version):
            raise DowngradeTargetFormat("a target is MAJOR.MINOR, such as 3.5")
        raise InvalidDowngradeTarget("this store cannot become an older one")

    def _check_admin(self, context: grpc.aio.ServicerContext) -> None:
        self._member.machine.auth.check_admin(identify(self._member, context))

    @unary
    async def MoveLeader(
        self, request: pb.MoveLeaderRequest, context: grpc.aio.ServicerContext
    ) -> pb.MoveLeaderResponse:
        """A lone member can hand leadership only to itself."""
        self._check_admin(context)
        if request.targetID != self._member.id:
            raise BadLeaderTransferee(f"{request.targetID:x} is not a member")
        return pb.MoveLeaderResponse()


def _pieces(fd: int) -> Iterator[pb.SnapshotResponse]:
    digest = hashlib.sha256()
    size = os.fstat(fd).st_size
    for start in range(0, size, _PIECE_BYTES):
        blob = os.pread(fd, _PIECE_BYTES, start)
        digest.update(blob)
        yield pb.SnapshotResponse(blob=blob, remaining_bytes=size - start - len(blob), version=ETCD_VERSION)
    yield pb.SnapshotResponse(blob=digest.digest(), version=ETCD_VERSION)
