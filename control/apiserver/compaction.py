"""Old history is given back to the store: every five minutes everything older than five minutes.

Several apiservers share the work through one key: whoever finds it unchanged since its own last look compacts; the
others see that somebody did. Source: apiserver, storage/etcd3/compact.go.
"""

import asyncio
import logging

from raftstore.client import Client, compare_version, op_put, op_range
from raftstore.client import errors as etcd_errors

log = logging.getLogger(__name__)

KEY = b"/registry/.compact"
"""Below the watched prefix, so that writing it moves the watch caches along."""

INTERVAL_S = 300.0


async def run_compaction(etcd: Client, interval_s: float = INTERVAL_S) -> None:
    """Compact for ever; a store that does not answer is asked again at the next turn."""
    version, revision = 0, 0
    while True:
        try:
            version, revision = await _turn(etcd, version, revision)
        except etcd_errors.EtcdError as err:
            log.warning("compaction failed; trying again later", extra={"cause": str(err)})
        await asyncio.sleep(interval_s)


async def _turn(etcd: Client, version: int, revision: int) -> tuple[int, int]:
    """Compact at ``revision``, seen at the last turn, if the key's version is still ours. (version, revision) now."""
    answer = await etcd.txn(
        [compare_version(KEY, "=", version)], [op_put(KEY, str(revision).encode())], [op_range(KEY)]
    )
    now = answer.header.revision
    if not answer.succeeded:
        return answer.responses[0].response_range.kvs[0].version, now
    if revision:
        try:
            await etcd.compact(revision)
            log.debug("compacted", extra={"revision": revision})
        except etcd_errors.Compacted:
            log.debug("somebody compacted further already", extra={"revision": revision})
    return version + 1, now
