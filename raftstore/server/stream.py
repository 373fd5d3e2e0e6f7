"""A range in chunks: the list of revisions is fixed at the start, so all chunks show one revision."""

from collections.abc import AsyncIterator

from protos.etcd import rpc_pb2 as pb
from raftstore.member import Member
from raftstore.mvcc.range import read_range

_FIRST_CHUNK_KEYS = 10
_CHUNK_BYTES = 512 * 1024


async def range_stream(member: Member, request: pb.RangeRequest) -> AsyncIterator[pb.RangeStreamResponse]:
    """Chunks of the answer to ``request``; header, ``more`` and ``count`` come with the last. Raises Compacted, ..."""
    header, whole = member.header(), read_range(member.store, request)
    kvs = whole.kvs
    start, size = 0, 0
    for at, kv in enumerate(kvs):
        size += kv.ByteSize()
        full = at + 1 - start >= _FIRST_CHUNK_KEYS if start == 0 else size >= _CHUNK_BYTES
        if full and at + 1 < len(kvs):
            yield pb.RangeStreamResponse(range_response=pb.RangeResponse(kvs=kvs[start : at + 1]))
            start, size = at + 1, 0
    last = pb.RangeResponse(header=header, kvs=kvs[start:], more=whole.more, count=whole.count)
    yield pb.RangeStreamResponse(range_response=last)
