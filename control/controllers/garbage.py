"""Objects whose owners are gone go too (background), go first (foreground), or are set free (orphan).

``judge`` is pure.

An owner reference names its owner by uid. What a cascade does is written on the owner: finalizer
``foregroundDeletion`` means that its dependents go first, finalizer ``orphan`` that they stay.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from control.api import meta
from control.api.kinds import KINDS, Kind, by_kind
from control.client import errors
from control.controllers.controller import Controller, Environment
from protos.k8s.meta_v1_pb2 import OwnerReference

log = logging.getLogger(__name__)

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
NOT_COLLECTED = ("Event", "Lease")
"""Kinds that are many, short-lived and own nothing."""


@dataclass(frozen=True)
class Verdict:
    """What to do with one dependent: delete it, or drop references, or nothing."""

    delete: bool = False
    propagation: str = "Background"
    drop: tuple[str, ...] = ()


def judge(obj: Any, find: Callable[[OwnerReference], Any | None]) -> Verdict:
    """Judge an object by its owners; ``find`` gives the owner that a reference means, or None if it does not exist.

    It stays while one owner stays. With owners gone and others alive only the dead references go. When the last ones
    are being deleted in the foreground and wait for it, it goes in the foreground too.
    """
    owners = [(reference, find(reference)) for reference in obj.metadata.ownerReferences]
    gone = tuple(reference.uid for reference, owner in owners if owner is None)
    waiting = tuple(r.uid for r, owner in owners if owner is not None and waits_for_dependents(owner))
    alive = len(owners) - len(gone) - len(waiting)
    if not owners or meta.is_deleting(obj):
        return Verdict()
    if alive:
        return Verdict(drop=(*gone, *waiting))
    if waiting:
        return Verdict(delete=True, propagation="Foreground")
    return Verdict(delete=True)


def waits_for_dependents(owner: Any) -> bool:
    """True for an owner that is being deleted after its dependents."""
    return meta.is_deleting(owner) and FOREGROUND in owner.metadata.finalizers


def orphans_dependents(owner: Any) -> bool:
    """True for an owner that is being deleted without its dependents."""
    return meta.is_deleting(owner) and ORPHAN in owner.metadata.finalizers


def blocking(owner: Any, dependents: Iterable[Any]) -> list[Any]:
    """The dependents that must be gone before ``owner`` may go (blockOwnerDeletion)."""
    return [
        dependent
        for dependent in dependents
        if any(r.uid == owner.metadata.uid and r.blockOwnerDeletion for r in dependent.metadata.ownerReferences)
    ]


class GarbageCollector(Controller):
    """Keys are ``<plural.group>|<namespace/name>``."""

    name = "garbage"

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self.kinds = {kind.resource: kind for kind in KINDS if kind.kind not in NOT_COLLECTED}
        self._uids: dict[str, str] = {}
        self._dependents: dict[str, set[str]] = {}
        for kind in self.kinds.values():
            env.informer(kind.message).add_handler(self._handler(kind))

    def _handler(self, kind: Kind) -> Callable[[Any, Any], None]:
        def changed(old: Any, new: Any) -> None:
            if old is not None:
                self._forget(kind, old, gone=new is None or new.metadata.uid != old.metadata.uid)
            if new is not None:
                self._learn(kind, new)

        return changed

    def _learn(self, kind: Kind, obj: Any) -> None:
        key = f"{kind.resource}|{meta.key(obj)}"
        self._uids[obj.metadata.uid] = key
        for reference in obj.metadata.ownerReferences:
            self._dependents.setdefault(reference.uid, set()).add(key)
        if meta.is_deleting(obj):
            self._wake_dependents(obj.metadata.uid)
            if waits_for_dependents(obj) or orphans_dependents(obj):
                self.queue.add(key)
        elif any(self._uids.get(reference.uid) is None for reference in obj.metadata.ownerReferences):
            self.queue.add(key)

    def _forget(self, kind: Kind, obj: Any, gone: bool) -> None:
        key = f"{kind.resource}|{meta.key(obj)}"
        for reference in obj.metadata.ownerReferences:
            known = self._dependents.get(reference.uid)
            if known is not None:
                known.discard(key)
                if not known:
                    del self._dependents[reference.uid]
            if gone and (owner := self._uids.get(reference.uid)) is not None:
                self.queue.add(owner)
        if gone:
            self._uids.pop(obj.metadata.uid, None)
            self._wake_dependents(obj.metadata.uid)

    def _wake_dependents(self, uid: str) -> None:
        for key in self._dependents.get(uid, ()):
            self.queue.add(key)

    def _lookup(self, key: str) -> tuple[Kind, Any | None]:
        resource, _, name = key.partition("|")
        kind = self.kinds[resource]
        return kind, self.env.informer(kind.message).get(name)

    async def sync(self, key: str) -> None:
        """Judge one object as a dependent and as an owner."""
        kind, obj = self._lookup(key)
        if obj is None:
            return
        if orphans_dependents(obj):
            await self._orphan(kind, obj)
        elif waits_for_dependents(obj):
            await self._delete_dependents_first(kind, obj)
        if obj.metadata.ownerReferences and not meta.is_deleting(obj):
            await self._collect(kind, obj)

    async def _collect(self, kind: Kind, obj: Any) -> None:
        owners = {reference.uid: await self._owner(obj, reference) for reference in obj.metadata.ownerReferences}
        verdict = judge(obj, lambda reference: owners[reference.uid])
        if verdict.delete:
            log.info("deleting dependent", extra={"object": meta.describe(obj)})
            await self._delete(kind, obj, verdict.propagation)
        elif verdict.drop:
            await self._drop_references(kind, obj, verdict.drop)

    async def _owner(self, obj: Any, reference: OwnerReference) -> Any | None:
        """The owner as the cache knows it; what the cache does not know is asked of the server, for it may be new."""
        key = self._uids.get(reference.uid)
        if key is not None:
            return self._lookup(key)[1]
        try:
            kind = by_kind(reference.apiVersion, reference.kind)
        except LookupError:
            return reference  # of a kind that is not served: not ours to judge, so it counts as alive
        try:
            namespace = obj.metadata.namespace if kind.namespaced else ""
            owner = await self.client.get(kind.message, reference.name, namespace=namespace)
        except errors.NotFound:
            return None
        return owner if owner.metadata.uid == reference.uid else None

    async def _delete_dependents_first(self, kind: Kind, owner: Any) -> None:
        dependents = [found for key in self._dependents.get(owner.metadata.uid, ()) if (found := self._lookup(key)[1])]
        if blocking(owner, dependents):
            for dependent in dependents:
                self.queue.add(f"{self._kind_of(dependent).resource}|{meta.key(dependent)}")
        else:
            await self._remove_finalizer(kind, owner, FOREGROUND)

    async def _orphan(self, kind: Kind, owner: Any) -> None:
        for key in sorted(self._dependents.get(owner.metadata.uid, ())):
            dependent_kind, dependent = self._lookup(key)
            if dependent is not None:
                await self._drop_references(dependent_kind, dependent, (owner.metadata.uid,))
        await self._remove_finalizer(kind, owner, ORPHAN)

    def _kind_of(self, obj: Any) -> Kind:
        return next(kind for kind in self.kinds.values() if kind.message is type(obj))

    async def _delete(self, kind: Kind, obj: Any, propagation: str) -> None:
        try:
            await self.client.delete(
                kind.message,
                obj.metadata.name,
                namespace=obj.metadata.namespace,
                propagation=propagation,
                uid=obj.metadata.uid,
            )
        except (errors.NotFound, errors.Conflict):
            log.debug("dependent already gone", extra={"object": meta.describe(obj)})

    async def _drop_references(self, kind: Kind, obj: Any, uids: tuple[str, ...]) -> None:
        await self._rewrite(kind, obj, lambda metadata: _keep(metadata.ownerReferences, lambda r: r.uid not in uids))

    async def _remove_finalizer(self, kind: Kind, obj: Any, finalizer: str) -> None:
        await self._rewrite(kind, obj, lambda metadata: _keep(metadata.finalizers, lambda f: f != finalizer))

    async def _rewrite(self, kind: Kind, obj: Any, change: Callable[[Any], None]) -> None:
        """Change an object's metadata, starting from its newest version. Raises Conflict if it changes meanwhile."""
        try:
            current = await self.client.get(kind.message, obj.metadata.name, namespace=obj.metadata.namespace)
            if current.metadata.uid == obj.metadata.uid:
                change(current.metadata)
                await self.client.update(current)
        except errors.NotFound:
            log.debug("object already gone", extra={"object": meta.describe(obj)})


def _keep(entries: Any, wanted: Callable[[Any], bool]) -> None:
    kept = [entry for entry in entries if wanted(entry)]
    del entries[:]
    entries.extend(kept)
