"""History is compacted by whoever comes first, one turn behind."""

import asyncio
from typing import Any

import pytest

from control.apiserver.compaction import run_compaction
from raftstore.client import Client, errors


async def test_history_older_than_the_last_turn_goes(store: Any) -> None:
    async with Client([store.url]) as etcd:
        for index in range(10):
            await etcd.put(b"/registry/x", str(index).encode())
        first = (await etcd.range(b"/registry/x", revision=0)).header.revision
        tasks = [asyncio.create_task(run_compaction(etcd, interval_s=0.05)) for _ in range(2)]
        async with asyncio.timeout(10):
            with pytest.raises(errors.Compacted):
                while True:
                    await etcd.put(b"/registry/x", b"y")
                    await etcd.range(b"/registry/x", revision=first)
        assert (await etcd.range(b"/registry/x")).kvs[0].value == b"y"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
