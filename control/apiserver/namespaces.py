"""The end of a namespace: when one is marked for deletion, everything in it goes, then the namespace itself.

Level-triggered: it looks at the caches, deletes what it sees, and looks again after the next change.
"""

import logging

from control.api import errors, meta
from control.api.kinds import KINDS
from control.apiserver.admission import NAMESPACES
from control.apiserver.reading import select
from control.apiserver.registry import Registry
from control.apiserver.strategy import NAMESPACE_FINALIZER
from protos.k8s.core_v1_pb2 import Namespace

log = logging.getLogger(__name__)

RESYNC_S = 5.0
"""Longest time between two looks while a namespace is terminating, seconds."""


async def run_namespace_lifecycle(registry: Registry) -> None:
    """Empty and remove terminating namespaces until cancelled."""
    feed = registry.feed
    await feed.ready.wait()
    while True:
        seen = feed.revision
        terminating = [
            item.obj for item in feed.cache(NAMESPACES).items(NAMESPACES.registry_prefix) if meta.is_deleting(item.obj)
        ]
        for namespace in terminating:
            await _empty(registry, namespace)
        if terminating:
            await feed.reach(seen + 1, RESYNC_S)
        else:
            await feed.cache(NAMESPACES).changed()


async def _empty(registry: Registry, namespace: Namespace) -> None:
    name = namespace.metadata.name
    try:
        left = 0
        for kind in (kind for kind in KINDS if kind.namespaced):
            chosen = select(kind, name, "", "")
            if any(True for _ in registry.feed.cache(kind).items(chosen.prefix)):
                await registry.delete_collection(chosen)
                left += len((await registry.list(chosen)).items)
        if not left:
            await _finalize(registry, namespace)
    except errors.NotFound:
        return
    except errors.ApiError as err:
        log.warning("namespace not emptied yet", extra={"namespace": name, "cause": err.message})


async def _finalize(registry: Registry, namespace: Namespace) -> None:
    """Take our finalizer off; the namespace goes with its last one."""
    done: Namespace = meta.copy_of(namespace)
    done.metadata.resourceVersion = ""
    if NAMESPACE_FINALIZER in done.spec.finalizers:
        done.spec.finalizers.remove(NAMESPACE_FINALIZER)
        await registry.update(done, "finalize")
        log.info("namespace deleted", extra={"namespace": namespace.metadata.name})
