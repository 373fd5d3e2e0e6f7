"""Who may do what: a small built-in table, a row per identity. Masters may do everything, nobody else more than listed.

A rule is verbs and resources, each ``*`` or names; a subresource is named ``pods/status``. Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from control.api.errors import Forbidden
from control.apiserver.identity import MASTERS, User

READ = frozenset({"get", "list", "watch"})
WRITE = frozenset({"create", "update", "patch", "delete"})
ALL = READ | WRITE | {"deletecollection"}
NODE_PREFIX = "system:node:"


@dataclass(frozen=True)
class Attributes:
    """One request: ``resource`` is the plural, with ``/subresource`` when there is one."""

    verb: str
    resource: str
    group: str = ""
    namespace: str = ""
    name: str = ""


@dataclass(frozen=True)
class Rule:
    """Allows ``verbs`` on ``resources``."""

    verbs: frozenset[str]
    resources: frozenset[str]

    def allows(self, request: Attributes) -> bool:
        """Whether the rule covers the request: ``*`` covers every kind, ``*/status`` the status of every kind."""
        _, slash, subresource = request.resource.partition("/")
        wildcard = f"*{slash}{subresource}"
        return request.verb in self.verbs and bool({request.resource, wildcard} & self.resources)


def _rule(verbs: Iterable[str], resources: str) -> Rule:
    return Rule(frozenset(verbs), frozenset(resources.split()))


EVENTS = _rule({"create", "patch", "update"}, "events")
ELECTION = _rule({"get", "create", "update"}, "leases")

# Identity (user or group) to what it may do.
TABLE: dict[str, tuple[Rule, ...]] = {
    "system:kube-scheduler": (
        _rule(READ, "*"),
        _rule({"create"}, "pods/binding"),
        _rule({"patch", "update"}, "pods/status"),
        _rule({"delete"}, "pods"),
        EVENTS,
        ELECTION,
    ),
    "system:kube-controller-manager": (
        _rule(ALL, "*"),
        _rule({"get", "update", "patch"}, "*/status */scale namespaces/finalize"),
        _rule({"create"}, "pods/eviction"),
    ),
    "system:nodes": (
        _rule(
            READ,
            "pods nodes services endpoints endpointslices configmaps secrets serviceaccounts leases namespaces "
            "persistentvolumes persistentvolumeclaims storageclasses",
        ),
        _rule({"create", "update", "patch", "delete"}, "nodes leases"),
        _rule({"update", "patch"}, "nodes/status pods/status"),
        _rule({"create", "delete"}, "pods"),
        EVENTS,
    ),
    "system:kube-proxy": (
        _rule(READ, "nodes services endpoints endpointslices namespaces pods"),
        EVENTS,
    ),
}


def authorize(user: User, request: Attributes) -> None:
    """Raise Forbidden unless the table allows ``request`` to ``user``."""
    if MASTERS in user.groups:
        return
    rules = [rule for identity in (user.name, *user.groups) for rule in TABLE.get(identity, ())]
    if not any(rule.allows(request) for rule in rules):
        raise Forbidden(denial(user, request))
    if request.resource in ("nodes", "nodes/status") and request.verb in WRITE:
        _authorize_own_node(user, request)


def _authorize_own_node(user: User, request: Attributes) -> None:
    """A kubelet writes its own Node only."""
    if user.name.startswith(NODE_PREFIX) and request.name not in ("", user.name.removeprefix(NODE_PREFIX)):
        raise Forbidden(denial(user, request) + ": a node may only write its own Node")


def denial(user: User, request: Attributes) -> str:
    """Kubernetes' sentence for what is not allowed."""
    name = f' "{request.name}"' if request.name else ""
    where = f' in the namespace "{request.namespace}"' if request.namespace else " at the cluster scope"
    plural, slash, subresource = request.resource.partition("/")
    full = (f"{plural}.{request.group}" if request.group else plural) + slash + subresource
    return (
        f'{full}{name} is forbidden: User "{user.name}" cannot {request.verb} resource "{request.resource}" '
        f'in API group "{request.group}"{where}'
    )
