"""What a write must pass between validation's rules and the store: hooks that may change or refuse an object.

Mutating hooks run before validation, in order; refusals are ApiErrors. A new one is a function and an entry in
``HOOKS``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from control.api.errors import forbidden, not_found
from control.api.kinds import Kind, by_name
from control.apiserver.cache import Cache
from control.apiserver.feed import Feed
from control.apiserver.identity import User

NAMESPACES = by_name("namespaces")
PERMANENT = ("default", "kube-system", "kube-public", "kube-node-lease")
TOLERATED_S = 300
NOT_READY = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


@dataclass(frozen=True)
class Request:
    """One write. ``obj`` is None for deletions, ``old`` for creates."""

    verb: str
    kind: Kind
    namespace: str
    name: str
    user: User
    obj: Any | None = None
    old: Any | None = None


Hook = Callable[[Request, Feed], None]


def admit(request: Request, feed: Feed) -> None:
    """Run every hook. Raises the ApiError of the first that refuses."""
    for hook in HOOKS:
        hook(request, feed)


def _namespace_lifecycle(request: Request, feed: Feed) -> None:
    """Nothing is created in a namespace that is missing or going; the permanent ones stay."""
    if request.kind is NAMESPACES and request.verb == "delete" and request.name in PERMANENT:
        raise forbidden(NAMESPACES, request.name, "this namespace may not be deleted")
    if request.verb != "create" or not request.kind.namespaced:
        return
    namespace = _namespace(feed.cache(NAMESPACES), request.namespace)
    if namespace is None:
        raise not_found(NAMESPACES, request.namespace)
    if namespace.metadata.HasField("deletionTimestamp"):
        why = f"unable to create new content in namespace {request.namespace} because it is being terminated"
        raise forbidden(request.kind, request.name, why)


def _namespace(cache: Cache, name: str) -> Any | None:
    return cache.get(NAMESPACES.registry_prefix + name)


def _default_tolerations(request: Request, feed: Feed) -> None:
    """A pod stays for five minutes on a node that stopped answering, unless it says otherwise."""
    if request.kind.kind != "Pod" or request.verb != "create" or request.obj is None:
        return
    tolerations = request.obj.spec.tolerations
    for key in NOT_READY:
        if not any(t.key in ("", key) and t.effect in ("", "NoExecute") for t in tolerations):
            tolerations.add(key=key, operator="Exists", effect="NoExecute", tolerationSeconds=TOLERATED_S)


def _node_restriction(request: Request, feed: Feed) -> None:
    """A kubelet creates and deletes only pods of its own node."""
    prefix = "system:node:"
    if request.kind.kind != "Pod" or not request.user.name.startswith(prefix):
        return
    node, pod = request.user.name.removeprefix(prefix), request.old or request.obj
    if pod is not None and pod.spec.nodeName != node:
        raise forbidden(request.kind, request.name, f"node {node!r} may only write pods that run on it")


HOOKS: tuple[Hook, ...] = (_namespace_lifecycle, _default_tolerations, _node_restriction)
