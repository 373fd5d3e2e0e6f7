"""The verbs, on every kind: read, list, watch, create, update, patch, delete. Knows no gRPC and no HTTP.

A write is: prepare (strategy), default, admit, validate, and one transaction that only succeeds on the version it was
computed from. Lost races are computed again, unless the caller named the version: then they are told.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from control.api import defaults, errors, meta, selectable, selectors, times
from control.api.kinds import Kind, by_kind, by_name
from control.api.scalars import JSON
from control.api.validation import validate, validate_update
from control.apiserver import admission, deletion, patching, scale, strategy
from control.apiserver.addresses import Allocator, NotAvailable, Taken
from control.apiserver.cache import Change, Cursor
from control.apiserver.events import EventLeases
from control.apiserver.feed import Feed
from control.apiserver.identity import LOCAL, User
from control.apiserver.storage import PAGE, Changed, KeyExists, Storage, Stored, key_of, prefix_of
from control.apiserver.tokens import decode_token, encode_token
from protos.k8s import core_v1_pb2 as core
from protos.k8s.autoscaling_v1_pb2 import Scale

NAME_TRIES, WRITE_TRIES = 8, 10
FRESH_S = 0.25
"""How long a list waits for the watch cache to catch up with the store before it reads the store itself, seconds."""

BOOKMARK_S = 30.0
PODS, SERVICES = by_name("pods"), by_name("services")


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


@dataclass(frozen=True)
class DeleteOptions:
    """How to delete; ``grace_s`` None is the kind's default. uid and resource_version are preconditions."""

    grace_s: int | None = None
    propagation: str = ""
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False


NOW = DeleteOptions()


class Registry:
    """Every verb on every kind, over one store and its watch caches."""

    def __init__(self, storage: Storage, feed: Feed, allocator: Allocator, events: EventLeases) -> None:
        self._storage, self.feed, self.allocator, self._events = storage, feed, allocator, events
        # Addresses of services that are on their way to the store, so that two creates at a time do not collide.
        self._services = asyncio.Lock()

    # -- reading -------------------------------------------------------------------------------------------------

    async def get(self, kind: Kind, namespace: str, name: str) -> Any:
        """One object, as of now. Raises NotFound."""
        return (await self._read(kind, namespace, name)).obj

    async def get_scale(self, kind: Kind, namespace: str, name: str) -> Scale:
        """The Scale of a workload. Raises NotFound, MethodNotAllowed."""
        _require_scale(kind)
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
        return await self._change(
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
        _require_scale(kind)

        def scaled(old: Any) -> Any:
            new = meta.copy_of(old)
            new.spec.replicas = wanted.spec.replicas
            new.metadata.resourceVersion = wanted.metadata.resourceVersion
            new.metadata.uid = wanted.metadata.uid or new.metadata.uid
            return new

        obj = await self._change(kind, wanted.metadata.namespace, wanted.metadata.name, scaled, "", user, dry_run)
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

        return await self._change(kind, namespace, name, patched, subresource, user, dry_run)

    async def _patch_scale(
        self, kind: Kind, namespace: str, name: str, patch_type: str, body: JSON, user: User, dry_run: bool
    ) -> Scale:
        before = await self.get_scale(kind, namespace, name)
        wanted = patching.apply_patch(_SCALE, before, patch_type, body)
        return await self.update_scale(kind, wanted, user, dry_run)

    async def _change(
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
        _check_subresource(kind, subresource)
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

    # -- pods ----------------------------------------------------------------------------------------------------

    async def bind(self, namespace: str, pod: str, node: str, uid: str = "", user: User = LOCAL) -> None:
        """Assign a pod to a node. Raises Conflict when it has one already or is going."""

        def bound(old: core.Pod) -> core.Pod:
            if old.metadata.HasField("deletionTimestamp"):
                raise errors.conflict(PODS, pod, f"pod {pod} is being deleted, cannot be assigned to a host")
            if old.spec.nodeName:
                raise errors.conflict(PODS, pod, f"pod {pod} is already assigned to node {old.spec.nodeName!r}")
            new: core.Pod = meta.copy_of(old)
            new.metadata.resourceVersion = ""
            new.metadata.uid = uid or new.metadata.uid
            new.spec.nodeName = node
            meta.set_condition(new.status.conditions, "PodScheduled", "True")
            return new

        if not node:
            raise errors.invalid(
                PODS, pod, [errors.Cause("FieldValueRequired", "Required value: the node to bind to", "target.name")]
            )
        await self._change(PODS, namespace, pod, bound, "binding", user, dry_run=False)

    async def evict(self, namespace: str, pod: str, options: DeleteOptions = NOW, user: User = LOCAL) -> None:
        """Delete a pod unless a disruption budget says not now (TooManyRequests)."""
        obj = await self.get(PODS, namespace, pod)
        if not meta.pod_is_finished(obj) and not meta.is_deleting(obj):
            await self._spend_budget(obj)
        await self.delete(PODS, namespace, pod, replace(options, uid=options.uid or obj.metadata.uid), user)

    async def _spend_budget(self, pod: core.Pod) -> None:
        """Take one disruption from the budget that covers ``pod``, if there is one."""
        budgets = by_name("poddisruptionbudgets")
        covering = [
            budget
            for budget in (await self.list(select(budgets, pod.metadata.namespace, "", ""))).items
            if selectors.from_message(budget.spec.selector).matches(pod.metadata.labels)
        ]
        if len(covering) > 1:
            raise errors.InternalError(f"pod {meta.key(pod)} is covered by more than one disruption budget")
        for budget in covering:
            if budget.status.disruptionsAllowed <= 0:
                raise _would_violate(pod, budget)
            spent = meta.copy_of(budget)
            spent.status.disruptionsAllowed -= 1
            spent.status.disruptedPods[pod.metadata.name].CopyFrom(times.now())
            await self.update(spent, "status")


_SCALE = replace(by_kind("apps/v1", "Deployment"), group="autoscaling", version="v1", kind="Scale", plural="scales")


def _would_violate(pod: core.Pod, budget: Any) -> errors.TooManyRequests:
    cause = errors.Cause(
        "DisruptionBudget",
        f"The disruption budget {budget.metadata.name} needs {budget.status.desiredHealthy} healthy pods and has "
        f"{budget.status.currentHealthy} currently",
    )
    details = replace(errors.about(PODS, pod.metadata.name, [cause]), retry_after_seconds=10)
    return errors.TooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", details)


def _event_type(chosen: Selection, change: Change) -> str:
    """How a change looks through a selection: objects enter and leave it. Empty: not at all."""
    if not change.key.startswith(chosen.prefix):
        return ""
    is_in = change.now is not None and chosen.matches(change.now)
    was_in = change.before is not None and chosen.matches(change.before)
    if is_in:
        return "MODIFIED" if was_in else "ADDED"
    return "DELETED" if was_in else ""


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


def _check_subresource(kind: Kind, subresource: str) -> None:
    if subresource and subresource not in kind.subresources:
        raise errors.MethodNotAllowed(f"{kind.resource} have no subresource {subresource!r}", errors.about(kind))


def _require_scale(kind: Kind) -> None:
    _check_subresource(kind, "scale")


def _check_scope(kind: Kind, namespace: str, name: str) -> None:
    if not name or "/" in name or "\0" in name:
        raise errors.BadRequest(f"a {kind.kind} is named by one name without a slash, got {name!r}")
    if kind.namespaced and not namespace:
        raise errors.BadRequest(f"{kind.resource} {name!r}: say the namespace, it is required for this kind")
    if "/" in namespace or "\0" in namespace:
        raise errors.BadRequest(f"{namespace!r} is not the name of a namespace")
    if namespace and not kind.namespaced:
        raise errors.BadRequest(f"{kind.resource} {name!r}: leave the namespace empty, the kind is cluster-scoped")


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
    from control.api.kinds import UnknownKind, by_message

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


def _after(chosen: Selection, key: str) -> str:
    return key.removeprefix(chosen.prefix) + "\0"


def parse_version(text: str) -> int:
    """A resourceVersion as a number. Raises BadRequest."""
    if not text.isascii() or not text.isdigit():
        raise errors.BadRequest(f"invalid resource version {text!r}: give back one that the server gave")
    return int(text)
