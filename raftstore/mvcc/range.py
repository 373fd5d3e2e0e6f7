"""Answer a RangeRequest from a store: revision filters, sorting, limit, count, in etcd's order of work."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from protos.etcd.kv_pb2 import KeyValue
from protos.etcd.rpc_pb2 import RangeRequest, RangeResponse
from raftstore.mvcc.store import Store

_SORT_KEYS: dict[int, Callable[[KeyValue], Any]] = {
    RangeRequest.KEY: lambda kv: kv.key,
    RangeRequest.VERSION: lambda kv: kv.version,
    RangeRequest.CREATE: lambda kv: kv.create_revision,
    RangeRequest.MOD: lambda kv: kv.mod_revision,
    RangeRequest.VALUE: lambda kv: kv.value,
}


def read_range(store: Store, request: RangeRequest) -> RangeResponse:
    """The response without its header. Raises Compacted or FutureRevision."""
    store.check_revision(request.revision)
    found = store.find(request.key, request.range_end, request.revision)
    if request.count_only:
        return RangeResponse(count=len(found))
    limit = request.limit if request.limit > 0 else len(found)
    if in_key_order(request):
        response = RangeResponse.FromString(b"".join(map(_encoded, map(store.backend.record, found[:limit]))))
        response.more = len(found) > limit
    else:
        kvs = _sorted(request, filter(_revision_filter(request), map(store.load, found)))
        response = RangeResponse(kvs=kvs[:limit], more=len(kvs) > limit)
    response.count = len(found)
    if request.keys_only:
        for kv in response.kvs:
            kv.ClearField("value")
    return response


def _encoded(record: bytes) -> bytes:
    """A stored pair as field 2, ``kvs``, of a RangeResponse: a long answer is put together without a step per pair."""
    return _head(len(record)) + record


@lru_cache(4096)
def _head(size: int) -> bytes:
    """Tag (field 2, length-delimited) and length as a varint."""
    head = bytearray(b"\x12")
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)


def in_key_order(request: RangeRequest) -> bool:
    """Whether the index's own order and nothing else answers it, so that only ``limit`` pairs need be loaded."""
    filtered = (
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )
    return not filtered and request.sort_target == RangeRequest.KEY and request.sort_order != RangeRequest.DESCEND


def _revision_filter(request: RangeRequest) -> Callable[[KeyValue], bool]:
    mod_min, mod_max = request.min_mod_revision, request.max_mod_revision
    create_min, create_max = request.min_create_revision, request.max_create_revision

    def keep(kv: KeyValue) -> bool:
        return (
            (not mod_min or kv.mod_revision >= mod_min)
            and (not mod_max or kv.mod_revision <= mod_max)
            and (not create_min or kv.create_revision >= create_min)
            and (not create_max or kv.create_revision <= create_max)
        )

    return keep


def _sorted(request: RangeRequest, kvs: Iterable[KeyValue]) -> list[KeyValue]:
    key = _SORT_KEYS[request.sort_target]
    return sorted(kvs, key=key, reverse=request.sort_order == RangeRequest.DESCEND)
