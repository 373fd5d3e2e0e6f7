"""The verbs, on every kind: those of Reader, and create, update, patch, delete. Knows no gRPC and no HTTP.

A write is: prepare (strategy), default, admit, validate, and one transaction that only succeeds on the version it was
computed from. Lost races are computed again, unless the caller named the version: then they are told.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from control.api import defaults, errors, meta, times
from control.api.kinds import Kind, UnknownKind, by_kind, by_message, by_name
from control.api.scalars import JSON
from control.api.validation import validate, validate_update
from control.apiserver import admission, deletion, patching, scale, strategy
from control.apiserver.addresses import Allocator, NotAvailable, Taken
from control.apiserver.events import EventLeases
from control.apiserver.feed import Feed
from control.apiserver.identity import LOCAL, User
from control.apiserver.reading import FRESH_S, Listing, Reader, Selection, check_subresource, require_scale
from control.apiserver.storage import Changed, KeyExists, Storage, Stored, key_of
from protos.k8s import core_v1_pb2 as core
from protos.k8s.autoscaling_v1_pb2 import Scale

NAME_TRIES, WRITE_TRIES = 8, 10
SERVICES = by_name("services")


@dataclass(frozen=True)
class DeleteOptions:
    """How to delete; ``grace_s`` None is the kind's default. uid and resource_version are preconditions."""

    grace_s: int | None = None
    propagation: str = ""
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False


NOW = DeleteOptions()


class Registry(Reader):
    """Every verb on every kind, over one store and its watch caches."""

    def __init__(self, storage: Storage, feed: Feed, allocator: Allocator, events: EventLeases) -> None:
        super().__init__(storage, feed)
        self.allocator, self._events = allocator, events
        # Addresses of services that are on their way to the store, so that two creates at a time do not collide.
        self._services = asyncio.Lock()

    # -- creating ------------------------------------------------------------------------------------------------

    async def create(self, obj: Any, namespace: str = "", user: User = LOCAL, dry_run: bool = False) -> Any:
        """Store a new object. Raises AlreadyExists, Invalid, NotFound (namespace), Forbidden."""
        kind, new = _kind_of(obj), meta.copy_of(obj)
        _settle_namespace(kind, new, namespace)
        generated = not new.metadata.name and bool(new.metadata.generateName)
        for attempt in range(NAME_TRIES):
            if generated:
                new.metadata.name = strategy.generated_name(new.metadata.generateName, random.choice)
            try:
                return await self._create(kind, new, user, dry_run)
            except KeyExists as err:
                if not generated or attempt == NAME_TRIES - 1:
                    raise errors.already_exists(kind, new.metadata.name) from err
        raise errors.already_exists(kind, new.metadata.name)

    async def _create(self, kind: Kind, obj: Any, user: User, dry_run: bool) -> Any:
        strategy.prepare_create(kind, obj, times.now())
        defaults.set_defaults(obj)
        request = admission.Request("create", kind, obj.metadata.namespace, obj.metadata.name, user, obj)
        admission.admit(request, self.feed)
        if kind is SERVICES:
            return await self._create_service(obj, dry_run)
        return await self._store_new(kind, obj, dry_run)

    async def _create_service(self, service: core.Service, dry_run: bool) -> Any:
        async with self._services:
            await self._allocate(service, None)
            return await self._store_new(SERVICES, service, dry_run)

    async def _store_new(self, kind: Kind, obj: Any, dry_run: bool) -> Any:
        name = obj.metadata.name
        _refuse(kind, name, validate(obj))
        key = key_of(kind, obj.metadata.namespace, name)
        if dry_run:
            if await self._storage.get(kind, key) is not None:
                raise errors.already_exists(kind, name)
            return obj
        lease = await self._events.lease() if kind.kind == "Event" else 0
        revision = await self._storage.create(key, obj, lease)
        obj.metadata.resourceVersion = str(revision)
        return obj

    async def _allocate(self, service: core.Service, old: core.Service | None) -> None:
        """Give a service its addresses. Call under the lock: the caches must show all services stored before."""
        await self.feed.reach(await self._storage.revision(), FRESH_S)
        others = [
            item.obj
            for item in self.feed.cache(SERVICES).items(SERVICES.registry_prefix)
            if meta.key(item.obj) != meta.key(service)
        ]
        try:
            self.allocator.allocate(service, Taken.by(others), old)
        except NotAvailable as err:
            raise errors.invalid(SERVICES, service.metadata.name, [err.cause]) from err

    # -- changing ------------------------------------------------------------------------------------------------

    async def update(
        self, obj: Any, subresource: str = "", user: User = LOCAL, dry_run: bool = False, namespace: str = ""
    ) -> Any:
        """Replace an object, or its status. Raises NotFound, Conflict, Invalid."""
        kind, wanted = _kind_of(obj), meta.copy_of(obj)
        _settle_namespace(kind, wanted, namespace)
        return await self.change(
            kind,
            wanted.metadata.namespace,
            wanted.metadata.name,
            lambda old: meta.copy_of(wanted),
            subresource,
            user,
            dry_run,
        )

    async def update_scale(self, kind: Kind, wanted: Scale, user: User = LOCAL, dry_run: bool = False) -> Scale:
        """Set the replicas of a workload. Raises NotFound, Conflict, Invalid."""
        require_scale(kind)

        def scaled(old: Any) -> Any:
            new = meta.copy_of(old)
            new.spec.replicas = wanted.spec.replicas
            new.metadata.resourceVersion = wanted.metadata.resourceVersion
            new.metadata.uid = wanted.metadata.uid or new.metadata.uid
            return new

        obj = await self.change(kind, wanted.metadata.namespace, wanted.metadata.name, scaled, "", user, dry_run)
        return scale.to_scale(kind, obj)

    async def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        patch_type: str,
        body: JSON,
        subresource: str = "",
        user: User = LOCAL,
        dry_run: bool = False,
    ) -> Any:
        """Change part of an object, its status or its scale. Raises NotFound, BadRequest, Conflict, Invalid."""
        if subresource == "scale":
            return await self._patch_scale(kind, namespace, name, patch_type, body, user, dry_run)

        def patched(old: Any) -> Any:
            new = patching.apply_patch(kind, old, patch_type, body)
            if new.metadata.resourceVersion == old.metadata.resourceVersion and not _names_version(body):
                new.metadata.resourceVersion = ""
            return new

        return await self.change(kind, namespace, name, patched, subresource, user, dry_run)

    async def _patch_scale(
        self, kind: Kind, namespace: str, name: str, patch_type: str, body: JSON, user: User, dry_run: bool
    ) -> Scale:
        before = await self.get_scale(kind, namespace, name)
        wanted = patching.apply_patch(_SCALE, before, patch_type, body)
        return await self.update_scale(kind, wanted, user, dry_run)

    async def change(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        change: Callable[[Any], Any],
        subresource: str,
        user: User,
        dry_run: bool,
    ) -> Any:
        """Replace the object by ``change(old)``; computed anew when another write came first."""
        check_subresource(kind, subresource)
        old: Stored | None = await self._read(kind, namespace, name)
        for _ in range(WRITE_TRIES):
            if old is None:
                raise errors.not_found(kind, name)
            new = change(old.obj)
            pinned = bool(new.metadata.resourceVersion)
            _check_preconditions(kind, old.obj, new.metadata.uid, new.metadata.resourceVersion)
            try:
                return await self._replace(kind, old, new, subresource, user, dry_run)
            except Changed as err:
                if pinned:
                    raise errors.conflict(kind, name, errors.MODIFIED) from err
                old = err.current
        raise errors.conflict(kind, name, errors.MODIFIED)

    async def _replace(self, kind: Kind, old: Stored, new: Any, subresource: str, user: User, dry_run: bool) -> Any:
        _prepare(kind, new, old.obj, subresource)
        new.metadata.resourceVersion = old.obj.metadata.resourceVersion
        request = admission.Request("update", kind, new.metadata.namespace, new.metadata.name, user, new, old.obj)
        admission.admit(request, self.feed)
        if kind is SERVICES and not subresource:
            async with self._services:
                await self._allocate(new, old.obj)
                _refuse(kind, new.metadata.name, validate_update(new, old.obj))
                return await self._store_changed(kind, old, new, dry_run)
        if not subresource:
            _refuse(kind, new.metadata.name, validate_update(new, old.obj))
        return await self._store_changed(kind, old, new, dry_run)

    async def _store_changed(self, kind: Kind, old: Stored, new: Any, dry_run: bool) -> Any:
        if dry_run or meta.equal(new, old.obj):
            return new
        if deletion.is_done(kind, new):
            revision = await self._storage.delete(kind, old.key, old.revision)
        else:
            lease = await self._events.lease() if kind.kind == "Event" else 0
            revision = await self._storage.replace(kind, old.key, new, old.revision, lease)
        new.metadata.resourceVersion = str(revision)
        return new

    # -- deleting ------------------------------------------------------------------------------------------------

    async def delete(
        self, kind: Kind, namespace: str, name: str, options: DeleteOptions = NOW, user: User = LOCAL
    ) -> tuple[Any, bool]:
        """Delete an object: (its last or marked state, whether it is gone). Raises NotFound, Conflict, Forbidden."""
        old: Stored | None = await self._read(kind, namespace, name)
        for _ in range(WRITE_TRIES):
            if old is None:
                raise errors.not_found(kind, name)
            _check_preconditions(kind, old.obj, options.uid, options.resource_version)
            admission.admit(admission.Request("delete", kind, namespace, name, user, None, old.obj), self.feed)
            try:
                return await self._delete(kind, old, options)
            except Changed as err:
                old = err.current
        raise errors.conflict(kind, name, errors.MODIFIED)

    async def _delete(self, kind: Kind, old: Stored, options: DeleteOptions) -> tuple[Any, bool]:
        plan = deletion.plan_deletion(kind, old.obj, options.grace_s, options.propagation, times.now().seconds)
        result = plan.marked if plan.marked is not None else meta.copy_of(old.obj)
        if options.dry_run:
            return result, plan.removed
        if plan.removed:
            result.metadata.resourceVersion = str(await self._storage.delete(kind, old.key, old.revision))
        elif plan.marked is not None:
            result.metadata.resourceVersion = str(await self._storage.replace(kind, old.key, result, old.revision))
        return result, plan.removed

    async def delete_collection(self, chosen: Selection, options: DeleteOptions = NOW, user: User = LOCAL) -> Listing:
        """Delete everything that a list returns; objects that vanish meanwhile count as deleted."""
        listing = await self.list(chosen)
        deleted = []
        for obj in listing.items:
            try:
                one = replace(options, uid=obj.metadata.uid)
                deleted.append(
                    (await self.delete(chosen.kind, obj.metadata.namespace, obj.metadata.name, one, user))[0]
                )
            except (errors.NotFound, errors.Conflict):
                continue
        return Listing(deleted, listing.revision)


_SCALE = replace(by_kind("apps/v1", "Deployment"), group="autoscaling", version="v1", kind="Scale", plural="scales")


def _prepare(kind: Kind, new: Any, old: Any, subresource: str) -> None:
    if subresource == "status":
        strategy.prepare_status_update(new, old)
    elif subresource == "finalize":
        spec, version = type(new.spec)(), new.metadata.resourceVersion
        spec.CopyFrom(new.spec)
        new.CopyFrom(old)
        new.spec.CopyFrom(spec)
        new.metadata.resourceVersion = version
    elif subresource != "binding":
        strategy.prepare_update(kind, new, old)
        defaults.set_defaults(new)


def _check_preconditions(kind: Kind, obj: Any, uid: str, version: str) -> None:
    name = obj.metadata.name
    if uid and uid != obj.metadata.uid:
        raise errors.conflict(
            kind, name, f"Precondition failed: UID in precondition: {uid}, UID in object meta: {obj.metadata.uid}"
        )
    if version and version != obj.metadata.resourceVersion:
        raise errors.conflict(kind, name, errors.MODIFIED)


def _settle_namespace(kind: Kind, obj: Any, namespace: str) -> None:
    """The request's namespace fills an empty one and must equal a set one."""
    own = obj.metadata.namespace
    if not kind.namespaced:
        return
    if namespace and own and own != namespace:
        raise errors.BadRequest(
            f"the namespace of the object ({own}) does not match the namespace of the request ({namespace})"
        )
    obj.metadata.namespace = own or namespace or "default"


def _kind_of(obj: Any) -> Kind:
    try:
        return by_message(obj)
    except UnknownKind as err:
        raise errors.BadRequest(str(err)) from err


def _refuse(kind: Kind, name: str, causes: "list[errors.Cause]") -> None:
    if causes:
        raise errors.invalid(kind, name, causes)


def _names_version(body: JSON) -> bool:
    """Whether a patch itself names a resourceVersion: then it is a precondition."""
    if isinstance(body, dict):
        inner = body.get("metadata")
        return isinstance(inner, dict) and bool(inner.get("resourceVersion"))
    return any(
        isinstance(item, dict) and item.get("path") == "/metadata/resourceVersion" and item.get("op") != "test"
        for item in body or []
    )
