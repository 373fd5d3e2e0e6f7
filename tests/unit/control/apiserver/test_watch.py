"""Lists and watches: order, gaps, selectors, pages, bookmarks, restarts; on stock etcd and on raftstore."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from control.api.codec import from_json
from control.client import Client, WatchEvent, errors
from protos.k8s import core_v1_pb2 as core


def config_map(name: str, namespace: str = "default", **labels: str) -> core.ConfigMap:
    meta = {"name": name, "namespace": namespace, "labels": labels}
    return from_json({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})


async def take(events: Any, count: int) -> list[WatchEvent[Any]]:
    """The first ``count`` events."""
    found: list[WatchEvent[Any]] = []
    async with asyncio.timeout(10), aclosing(events) as stream:
        async for event in stream:
            found.append(event)
            if len(found) == count:
                break
    return found


def told(events: list[WatchEvent[Any]]) -> list[tuple[str, str]]:
    return [(event.type, event.object.metadata.name) for event in events]


async def test_a_watch_tells_every_change_after_its_version_in_order(client: Client) -> None:
    start = (await client.list(core.ConfigMap)).resource_version
    made = await client.create(config_map("a"))
    made.data["x"] = "1"
    await client.update(made)
    await client.create(config_map("b"))
    await client.delete(core.ConfigMap, "a", namespace="default")
    events = await take(client.watch(core.ConfigMap, resource_version=start), 4)
    assert told(events) == [("ADDED", "a"), ("MODIFIED", "a"), ("ADDED", "b"), ("DELETED", "a")]
    versions = [int(event.resource_version) for event in events]
    assert versions == sorted(versions) and int(start) < versions[0]
    assert events[3].object.data == {"x": "1"}
    assert events[3].object.metadata.resourceVersion == events[3].resource_version
    middle = await take(client.watch(core.ConfigMap, resource_version=str(versions[1])), 2)
    assert told(middle) == [("ADDED", "b"), ("DELETED", "a")]


async def test_a_watch_without_version_begins_with_what_exists(client: Client) -> None:
    await client.create(config_map("a"))
    await client.create(config_map("b"))
    assert told(await take(client.watch(core.ConfigMap), 2)) == [("ADDED", "a"), ("ADDED", "b")]
    events = await take(client.watch(core.ConfigMap, send_initial_events=True), 3)
    assert told(events[:2]) == [("ADDED", "a"), ("ADDED", "b")]
    assert events[2].type == "BOOKMARK" and events[2].initial_events_end


async def test_objects_enter_and_leave_a_selection(client: Client) -> None:
    start = (await client.list(core.ConfigMap)).resource_version
    made = await client.create(config_map("a", color="red"))
    for color in ("blue", "red", "red"):
        made.metadata.labels["color"] = color
        made.data["n"] = made.data["n"] + "i"
        made = await client.update(made)
    events = await take(client.watch(core.ConfigMap, label_selector="color=red", resource_version=start), 4)
    assert [event.type for event in events] == ["ADDED", "DELETED", "ADDED", "MODIFIED"]
    named = client.watch(core.ConfigMap, field_selector="metadata.name=b", resource_version=start)
    watching = asyncio.create_task(take(named, 1))
    await client.create(config_map("b"))
    assert told(await watching) == [("ADDED", "b")]


async def test_namespaces_are_apart(client: Client) -> None:
    await client.create(from_json({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default-2"}}))
    await client.create(config_map("a"))
    await client.create(config_map("b", namespace="default-2"))
    assert [c.metadata.name for c in (await client.list(core.ConfigMap, namespace="default")).items] == ["a"]
    assert len((await client.list(core.ConfigMap)).items) == 2
    assert told(await take(client.watch(core.ConfigMap, namespace="default-2"), 1)) == [("ADDED", "b")]


async def test_pages_are_pinned_to_the_first_ones_version(client: Client) -> None:
    for index in range(7):
        await client.create(config_map(f"c{index}", parity="odd" if index % 2 else "even"))
    page = await client.list(core.ConfigMap, namespace="default", limit=3)
    assert [c.metadata.name for c in page.items] == ["c0", "c1", "c2"] and page.remaining_item_count == 4
    await client.delete(core.ConfigMap, "c4", namespace="default")
    await client.create(config_map("c33"))
    rest = await client.list(core.ConfigMap, namespace="default", limit=3, continue_token=page.continue_token)
    assert [c.metadata.name for c in rest.items] == ["c3", "c4", "c5"]
    last = await client.list(core.ConfigMap, namespace="default", limit=3, continue_token=rest.continue_token)
    assert [c.metadata.name for c in last.items] == ["c6"] and not last.continue_token
    assert page.resource_version == rest.resource_version == last.resource_version
    odd = await client.list(core.ConfigMap, label_selector="parity in (odd)", limit=2)
    more = await client.list(
        core.ConfigMap, label_selector="parity in (odd)", limit=2, continue_token=odd.continue_token
    )
    assert [c.metadata.name for c in [*odd.items, *more.items]] == ["c1", "c3", "c5"]


async def test_a_list_sees_every_write_that_was_answered(client: Client) -> None:
    for index in range(20):
        await client.create(config_map(f"c{index}"))
        assert len((await client.list(core.ConfigMap)).items) == index + 1


async def test_versions_too_old_and_too_new_are_told(client: Client, server: Any, make_server: Any) -> None:
    other = make_server(server.store_url)
    await other.start()
    async with Client(other.address) as young:
        with pytest.raises(errors.Expired, match=r"too old resource version: 2 .*list again"):
            await take(young.watch(core.ConfigMap, resource_version="2"), 1)
    await other.stop()
    with pytest.raises(errors.Timeout, match="Too large resource version: 999999"):
        await client.list(core.ConfigMap, resource_version="999999")
    with pytest.raises(errors.BadRequest, match="invalid resource version 'x'"):
        await take(client.watch(core.ConfigMap, resource_version="x"), 1)


async def test_a_watch_ends_by_itself_when_its_time_is_over(client: Client) -> None:
    async with asyncio.timeout(10):
        events = [event async for event in client.watch(core.ConfigMap, timeout_seconds=1)]
    assert events == []


async def test_a_restarted_server_knows_everything_and_watches_go_on(
    client: Client, server: Any, make_server: Any
) -> None:
    await client.create(config_map("a"))
    before = await client.list(core.ConfigMap)
    await server.stop()
    other = make_server(server.store_url)
    await other.start()
    async with Client(other.address) as again:
        assert (await again.list(core.ConfigMap)).items == before.items
        watching = asyncio.create_task(take(again.watch(core.ConfigMap, resource_version=before.resource_version), 1))
        await again.create(config_map("b"))
        assert told(await watching) == [("ADDED", "b")]
    await other.stop()


async def test_a_store_that_went_away_is_found_again(client: Client, store: Any) -> None:
    await client.create(config_map("a"))
    start = (await client.list(core.ConfigMap)).resource_version
    watching = asyncio.create_task(take(client.watch(core.ConfigMap, resource_version=start), 1))
    store.stop()
    store.start()
    async with asyncio.timeout(20):
        while True:
            try:
                await client.create(config_map("b"))
                break
            except (errors.Unavailable, errors.Timeout):
                continue
            except errors.AlreadyExists:
                break
    assert told(await watching) == [("ADDED", "b")]
