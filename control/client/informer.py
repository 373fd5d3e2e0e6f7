"""A live copy of one kind: list, then watch, for ever. Handlers hear of every difference, in order."""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from control.api import errors, meta
from control.api.kinds import by_message
from control.client.client import Client, WatchEvent
from control.client.store import IndexFunction, Store

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Message)
Handler = Callable[[Any | None, Any | None], None]

PAGE = 500
"""Objects per page of the first list."""

BACKOFF_S, BACKOFF_S_MAX = 0.1, 5.0
"""First and longest pause after a failure, seconds."""


class Informer(Generic[T]):
    """Keeps the objects that a list with these selectors returns, and keeps them young.

    Objects are shared between all readers: copy (``meta.copy_of``) before changing one. A handler is called as
    ``handler(old, new)``: old None means added, new None means gone. It must not block; usually it puts a key into a
    WorkQueue. After a lost connection only differences are told.
    """

    def __init__(
        self,
        client: Client,
        cls: type[T],
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
    ) -> None:
        self._client = client
        self._cls = cls
        self._scope: dict[str, Any] = {
            "namespace": namespace,
            "label_selector": label_selector,
            "field_selector": field_selector,
        }
        self._store: Store[T] = Store()
        self._handlers: list[Handler] = []
        self._synced = asyncio.Event()
        self.resource_version = ""

    def add_handler(self, handler: Handler) -> None:
        """Call ``handler`` for every change from now on, and once for every object that is here already."""
        self._handlers.append(handler)
        for obj in self._store.list():
            handler(None, obj)

    def add_index(self, name: str, function: IndexFunction) -> None:
        """Keep an index: ``function(obj)`` gives the values under which ``by_index`` finds an object."""
        self._store.add_index(name, function)

    def get(self, key: str) -> T | None:
        """The object of a key ``namespace/name`` (``name`` for cluster-scoped kinds), or None."""
        return self._store.get(key)

    def list(self) -> list[T]:
        """All objects, by key."""
        return self._store.list()

    def by_index(self, name: str, value: str) -> "list[T]":  # type: ignore[valid-type]
        """The objects that an index finds under ``value``, by key."""
        return self._store.by_index(name, value)

    async def synced(self) -> None:
        """Wait until the first list is in."""
        await self._synced.wait()

    @property
    def has_synced(self) -> bool:
        """True once the first list is in."""
        return self._synced.is_set()

    async def run(self) -> None:
        """Follow the server until cancelled, through every failure of it. What a handler raises ends it."""
        backoff_s = BACKOFF_S
        while True:
            try:
                if not self.resource_version:
                    await self._list()
                backoff_s = BACKOFF_S
                await self._watch()
            except errors.Expired:
                self.resource_version = ""
            except errors.ApiError as err:
                self._tell(err, backoff_s)
                await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
                backoff_s = min(backoff_s * 2, BACKOFF_S_MAX)

    def _tell(self, err: errors.ApiError, backoff_s: float) -> None:
        facts = {"kind": by_message(self._cls).kind, "cause": err.message, "retry_s": backoff_s}
        level = logging.INFO if isinstance(err, errors.Unavailable | errors.Timeout) else logging.WARNING
        log.log(level, "informer lost its server", extra=facts)

    async def _list(self) -> None:
        page = await self._client.list(self._cls, limit=PAGE, **self._scope)
        found = {meta.key(obj): obj for obj in page.items}
        version = page.resource_version
        while page.continue_token:
            page = await self._client.list(self._cls, limit=PAGE, continue_token=page.continue_token, **self._scope)
            found.update((meta.key(obj), obj) for obj in page.items)
        self._replace(found)
        self.resource_version = version
        self._synced.set()

    def _replace(self, found: dict[str, T]) -> None:
        for key in sorted(self._store.keys() - set(found)):
            self._notify(self._store.remove(key), None)
        for key in sorted(found):
            self._put(found[key])

    async def _watch(self) -> None:
        events = self._client.watch(self._cls, resource_version=self.resource_version, **self._scope)
        async with aclosing(events) as stream:
            async for event in stream:
                self._apply(event)
                self.resource_version = event.resource_version or self.resource_version

    def _apply(self, event: WatchEvent[T]) -> None:
        if event.type in ("ADDED", "MODIFIED"):
            self._put(event.object)
        elif event.type == "DELETED":
            self._store.remove(meta.key(event.object))
            self._notify(event.object, None)

    def _put(self, obj: T) -> None:
        old = self._store.put(obj)
        if old is None or _version(old) != _version(obj):
            self._notify(old, obj)

    def _notify(self, old: T | None, new: T | None) -> None:
        for handler in self._handlers:
            handler(old, new)


def _version(obj: Any) -> str:
    version: str = obj.metadata.resourceVersion
    return version
