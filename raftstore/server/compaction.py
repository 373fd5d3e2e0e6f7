"""Automatic compaction: the leader forgets history as the member's policy says."""

import asyncio
import logging

from protos.etcd import rpc_pb2 as pb
from raftstore.auth.identity import CLUSTER
from raftstore.command import Kind
from raftstore.errors import Compacted, EtcdError
from raftstore.member import Member

log = logging.getLogger(__name__)


async def compact_repeatedly(member: Member) -> None:
    """Run until cancelled, also without a policy."""
    policy = member.config.compaction()
    if policy is None:
        await asyncio.Event().wait()
        return
    while True:
        await asyncio.sleep(policy.interval_s)
        revision = policy.due(asyncio.get_running_loop().time(), member.store.revision)
        if revision and member.leads:
            await _compact(member, revision)


async def _compact(member: Member, revision: int) -> None:
    try:
        await member.propose(Kind.COMPACT, pb.CompactionRequest(revision=revision), CLUSTER)
        log.info("compacted", extra={"revision": revision})
    except Compacted:
        pass  # somebody did already
    except EtcdError as err:
        log.warning("cannot compact", extra={"revision": revision, "cause": str(err)})
