"""The informer's memory: objects by key, and indexes kept in step. Not thread-safe; one event loop owns it."""

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from control.api import meta

T = TypeVar("T")
IndexFunction = Callable[[Any], Iterable[str]]


class Store(Generic[T]):
    """Objects by ``namespace/name``. What it hands out is shared: copy before changing."""

    def __init__(self) -> None:
        self._objects: dict[str, T] = {}
        self._functions: dict[str, IndexFunction] = {}
        # Invariant: _indexes[name][value] holds key  <=>  value in _functions[name](_objects[key])
        self._indexes: dict[str, dict[str, set[str]]] = {}

    def add_index(self, name: str, function: IndexFunction) -> None:
        """Keep an index: ``function(obj)`` gives the values under which an object is found."""
        self._functions[name], self._indexes[name] = function, {}
        for key, obj in self._objects.items():
            self._index(name, key, obj)

    def get(self, key: str) -> T | None:
        """The object of a key, or None."""
        return self._objects.get(key)

    def list(self) -> list[T]:
        """All objects, by key."""
        return [self._objects[key] for key in sorted(self._objects)]

    def keys(self) -> set[str]:
        """All keys."""
        return set(self._objects)

    def by_index(self, name: str, value: str) -> "list[T]":  # type: ignore[valid-type]
        """The objects that index ``name`` finds under ``value``, by key."""
        return [self._objects[key] for key in sorted(self._indexes[name].get(value, ()))]

    def put(self, obj: T) -> T | None:
        """Add or replace; returns what was there."""
        key = meta.key(obj)
        old = self.remove(key)
        self._objects[key] = obj
        for name in self._functions:
            self._index(name, key, obj)
        return old

    def remove(self, key: str) -> T | None:
        """Remove; returns what was there."""
        old = self._objects.pop(key, None)
        if old is not None:
            for name in self._functions:
                self._unindex(name, key, old)
        return old

    def _index(self, name: str, key: str, obj: T) -> None:
        for value in self._functions[name](obj):
            self._indexes[name].setdefault(value, set()).add(key)

    def _unindex(self, name: str, key: str, obj: T) -> None:
        for value in self._functions[name](obj):
            keys = self._indexes[name].get(value, set())
            keys.discard(key)
            if not keys:
                self._indexes[name].pop(value, None)
