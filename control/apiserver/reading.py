"""Reading: one object, lists, watches. Lists and watches come from the watch caches, in step with the store.

Consistency: a list is as new as any write answered before it began. The caches follow one etcd watch, so their state
is one revision; a list asks the store for its revision and waits until the caches are there.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from control.api import errors, selectable, selectors
from control.api.kinds import Kind
from control.apiserver import scale
from control.apiserver.cache import Change, Cursor
from control.apiserver.feed import Feed
from control.apiserver.storage import PAGE, Storage, Stored, key_of, prefix_of
from control.apiserver.tokens import decode_token, encode_token
from protos.k8s.autoscaling_v1_pb2 import Scale

FRESH_S = 0.25
"""How long a list waits for the watch cache to catch up with the store before it reads the store itself, seconds."""

BOOKMARK_S = 30.0
"""How often a quiet watch is told how far it has come, seconds."""


@dataclass(frozen=True)
class Selection:
    """Which objects of a kind: namespace ("" is all), labels, fields."""

    kind: Kind
    namespace: str
    labels: selectors.Selector
    fields: selectors.FieldSelector

    def matches(self, obj: Any) -> bool:
        """Whether an object of the kind and namespace meets both selectors."""
        return (self.labels.everything or self.labels.matches(obj.metadata.labels)) and (
            not self.fields.terms or selectable.matches(self.kind, self.fields, obj)
        )

    @property
    def prefix(self) -> str:
        """The key prefix that holds all candidates."""
        return prefix_of(self.kind, self.namespace)


def select(kind: Kind, namespace: str, label_selector: str, field_selector: str) -> Selection:
    """Read the selectors of a request. Raises BadRequest."""
    try:
        labels = selectors.parse_labels(label_selector)
        fields = selectable.parse_for(kind, field_selector)
    except selectors.SelectorError as err:
        raise errors.BadRequest(str(err)) from err
    if namespace and not kind.namespaced:
        raise errors.BadRequest(f"{kind.resource} are not in a namespace: leave it empty")
    return Selection(kind, namespace, labels, fields)


@dataclass(frozen=True)
class Listing:
    """The answer of list."""

    items: list[Any]
    revision: int
    continue_token: str = ""
    remaining: int = 0


@dataclass(frozen=True)
class Event:
    """One event of a watch. ``change`` is None for a bookmark and for an object that existed before (``initial``)."""

    type: str
    revision: int
    change: Change | None = None
    initial: Any | None = None
    initial_end: bool = False


class Reader:
    """The reading verbs, on every kind."""

    def __init__(self, storage: Storage, feed: Feed) -> None:
        self._storage, self.feed = storage, feed

    async def get(self, kind: Kind, namespace: str, name: str) -> Any:
        """One object, as of now. Raises NotFound."""
        return (await self._read(kind, namespace, name)).obj

    async def get_scale(self, kind: Kind, namespace: str, name: str) -> Scale:
        """The Scale of a workload. Raises NotFound, MethodNotAllowed."""
        require_scale(kind)
        return scale.to_scale(kind, await self.get(kind, namespace, name))

    async def revision(self) -> int:
        """The store's revision now: at or above that of every acknowledged write."""
        return await self._storage.revision()

    async def _read(self, kind: Kind, namespace: str, name: str) -> Stored:
        _check_scope(kind, namespace, name)
        found = await self._storage.get(kind, key_of(kind, namespace, name))
        if found is None:
            raise errors.not_found(kind, name)
        return found

    async def list(self, chosen: Selection, limit: int = 0, token: str = "", resource_version: str = "") -> Listing:
        """The chosen objects in key order, at one revision. Raises Expired for a token that is too old."""
        if token:
            revision, start = decode_token(token)
            return await self._page(chosen, limit, revision, chosen.prefix + start)
        if await self._fresh(resource_version):
            return self._list_cached(chosen, limit)
        return await self._page(chosen, limit, 0, chosen.prefix)

    async def _fresh(self, resource_version: str) -> bool:
        """Wait until the caches are as new as asked for: "" now, "0" anything, N that version. False: they are not."""
        if resource_version == "0":
            return self.feed.ready.is_set()
        wanted = parse_version(resource_version) if resource_version else await self._storage.revision()
        if await self.feed.reach(wanted, FRESH_S):
            return self.feed.ready.is_set()
        if resource_version and wanted > await self._storage.revision():
            raise errors.Timeout(
                f"Too large resource version: {wanted}, current: {self.feed.revision}",
                errors.Details(causes=(errors.Cause("ResourceVersionTooLarge", ""),), retry_after_seconds=1),
            )
        return False

    def _list_cached(self, chosen: Selection, limit: int) -> Listing:
        cache = self.feed.cache(chosen.kind)
        found = [item for item in cache.items(chosen.prefix) if chosen.matches(item.obj)]
        if not limit or len(found) <= limit:
            return Listing([item.obj for item in found], self.feed.revision)
        page = found[:limit]
        token = encode_token(self.feed.revision, _after(chosen, page[-1].key))
        return Listing([item.obj for item in page], self.feed.revision, token, len(found) - limit)

    async def _page(self, chosen: Selection, limit: int, revision: int, start: str) -> Listing:
        """A page from the store itself, pinned to ``revision``."""
        items: list[Stored] = []
        while True:
            size = min(PAGE, limit + 1) if limit else PAGE
            page = await self._storage.page(chosen.kind, chosen.prefix, start, size, revision)
            revision = page.revision
            items += [item for item in page.items if chosen.matches(item.obj)]
            if limit and len(items) > limit:
                token = encode_token(revision, _after(chosen, items[limit - 1].key))
                return Listing([item.obj for item in items[:limit]], revision, token)
            if not page.more:
                return Listing([item.obj for item in items], revision)
            start = page.items[-1].key + "\0"

    async def watch(
        self, chosen: Selection, resource_version: str, bookmarks: bool, send_initial: bool
    ) -> AsyncGenerator[Event, None]:
        """Changes after ``resource_version``; without one ("" or "0") the existing objects first. Never ends by itself.

        Raises Expired when the version is too old, or the watcher too slow.
        """
        cache = self.feed.cache(chosen.kind)
        if resource_version in ("", "0") or send_initial:
            await self._fresh(resource_version if resource_version != "0" else "0")
            await self.feed.ready.wait()
            since = self.feed.revision
            cursor = cache.cursor(since)
            existing = [item for item in cache.items(chosen.prefix) if chosen.matches(item.obj)]
            for item in existing:
                yield Event("ADDED", item.revision, initial=item.obj)
            if send_initial:
                yield Event("BOOKMARK", since, initial_end=True)
        else:
            await self.feed.ready.wait()
            cursor = cache.cursor(parse_version(resource_version))
        async with aclosing(self._follow(chosen, cursor, bookmarks)) as events:
            async for event in events:
                yield event

    async def _follow(self, chosen: Selection, cursor: Cursor, bookmarks: bool) -> AsyncGenerator[Event, None]:
        loop, told = asyncio.get_running_loop(), 0
        due = loop.time() + BOOKMARK_S
        while True:
            for change in cursor.take():
                type_ = _event_type(chosen, change)
                if type_:
                    yield Event(type_, change.revision, change)
                    told = change.revision
            await cursor.wait(due - loop.time())
            if loop.time() >= due:
                due = loop.time() + BOOKMARK_S
                if bookmarks and not cursor.behind and self.feed.revision > told:
                    told = self.feed.revision
                    yield Event("BOOKMARK", told)


def _event_type(chosen: Selection, change: Change) -> str:
    """How a change looks through a selection: objects enter and leave it. Empty: not at all."""
    if not change.key.startswith(chosen.prefix):
        return ""
    is_in = change.now is not None and chosen.matches(change.now)
    was_in = change.before is not None and chosen.matches(change.before)
    if is_in:
        return "MODIFIED" if was_in else "ADDED"
    return "DELETED" if was_in else ""


def check_subresource(kind: Kind, subresource: str) -> None:
    if subresource and subresource not in kind.subresources:
        raise errors.MethodNotAllowed(f"{kind.resource} have no subresource {subresource!r}", errors.about(kind))


def require_scale(kind: Kind) -> None:
    check_subresource(kind, "scale")


def _check_scope(kind: Kind, namespace: str, name: str) -> None:
    if not name or "/" in name or "\0" in name:
        raise errors.BadRequest(f"a {kind.kind} is named by one name without a slash, got {name!r}")
    if kind.namespaced and not namespace:
        raise errors.BadRequest(f"{kind.resource} {name!r}: say the namespace, it is required for this kind")
    if "/" in namespace or "\0" in namespace:
        raise errors.BadRequest(f"{namespace!r} is not the name of a namespace")
    if namespace and not kind.namespaced:
        raise errors.BadRequest(f"{kind.resource} {name!r}: leave the namespace empty, the kind is cluster-scoped")


def _after(chosen: Selection, key: str) -> str:
    return key.removeprefix(chosen.prefix) + "\0"


def parse_version(text: str) -> int:
    """A resourceVersion as a number. Raises BadRequest."""
    if not text.isascii() or not text.isdigit():
        raise errors.BadRequest(f"invalid resource version {text!r}: give back one that the server gave")
    return int(text)
