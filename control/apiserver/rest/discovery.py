"""The discovery documents, plain and aggregated, from the kinds table. Pure."""

from collections.abc import Iterable
from typing import Any

from control.api.kinds import KINDS, Kind

VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
ADDRESSES = [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}]

# Subresource: the kind of its body (group, version, kind; None: the parent's), and its verbs.
SUBRESOURCES: dict[str, tuple[tuple[str, str, str] | None, list[str]]] = {
    "status": (None, ["get", "patch", "update"]),
    "scale": (("autoscaling", "v1", "Scale"), ["get", "patch", "update"]),
    "finalize": (None, ["update"]),
    "binding": (("", "v1", "Binding"), ["create"]),
    "eviction": (("policy", "v1", "Eviction"), ["create"]),
    "log": (None, ["get"]),
    "exec": (("", "v1", "PodExecOptions"), ["create", "get"]),
    "attach": (("", "v1", "PodAttachOptions"), ["create", "get"]),
}


def groups() -> list[tuple[str, str]]:
    """(group, version) of every group but the core one, in table order."""
    return list(dict.fromkeys((kind.group, kind.version) for kind in KINDS if kind.group))


def kinds_in(group: str, version: str) -> list[Kind]:
    """The kinds of a group version, in table order."""
    return [kind for kind in KINDS if (kind.group, kind.version) == (group, version)]


def verbs_of(kind: Kind) -> list[str]:
    """The verbs of a kind; namespaces are deleted one by one."""
    return [verb for verb in VERBS if not (kind.plural == "namespaces" and verb == "deletecollection")]


def _subresources(kind: Kind) -> Iterable[tuple[str, tuple[str, str, str], list[str]]]:
    for name in kind.subresources:
        if name in SUBRESOURCES:
            body, verbs = SUBRESOURCES[name]
            yield name, body or (kind.group, kind.version, kind.kind), verbs


# -- plain -------------------------------------------------------------------------------------------------------


def api_versions() -> dict[str, Any]:
    """GET /api."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": ADDRESSES}


def api_group_list() -> dict[str, Any]:
    """GET /apis."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(*group) for group in groups()]}


def api_group(group: str) -> dict[str, Any] | None:
    """GET /apis/GROUP; None for a group that is not served."""
    found = [pair for pair in groups() if pair[0] == group]
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(*found[0])} if found else None


def _group(group: str, version: str) -> dict[str, Any]:
    entry = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [entry], "preferredVersion": entry}


def api_resource_list(group: str, version: str) -> dict[str, Any] | None:
    """GET /api/v1 and /apis/GROUP/VERSION; None when nothing is served there."""
    kinds = kinds_in(group, version)
    if not kinds:
        return None
    group_version = f"{group}/{version}" if group else version
    resources = [entry for kind in kinds for entry in _resources(kind)]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}


def _resources(kind: Kind) -> Iterable[dict[str, Any]]:
    names = {"shortNames": list(kind.short_names), "categories": list(kind.categories)}
    yield {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": verbs_of(kind),
        **{name: values for name, values in names.items() if values},
    }
    for name, (group, version, body), verbs in _subresources(kind):
        where = {} if (group, version) == (kind.group, kind.version) else {"group": group, "version": version}
        yield {
            "name": f"{kind.plural}/{name}",
            "singularName": "",
            "namespaced": kind.namespaced,
            **where,
            "kind": body,
            "verbs": verbs,
        }


# -- aggregated --------------------------------------------------------------------------------------------------


def aggregated(core: bool, version: str) -> dict[str, Any]:
    """The APIGroupDiscoveryList of /api (``core``) or /apis, in apidiscovery.k8s.io ``version``."""
    wanted = [("", "v1")] if core else groups()
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": [_group_discovery(*group) for group in wanted],
    }


def _group_discovery(group: str, version: str) -> dict[str, Any]:
    resources = [_resource_discovery(kind) for kind in kinds_in(group, version)]
    return {
        "metadata": {"name": group} if group else {},
        "versions": [{"version": version, "resources": resources, "freshness": "Current"}],
    }


def _resource_discovery(kind: Kind) -> dict[str, Any]:
    names = {"shortNames": list(kind.short_names), "categories": list(kind.categories)}
    return {
        "resource": kind.plural,
        "responseKind": _gvk(kind.group, kind.version, kind.kind),
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": verbs_of(kind),
        **{name: values for name, values in names.items() if values},
        "subresources": [
            {"subresource": name, "responseKind": _gvk(*body), "verbs": verbs}
            for name, body, verbs in _subresources(kind)
        ],
    }


def _gvk(group: str, version: str, kind: str) -> dict[str, str]:
    return {"group": group, "version": version, "kind": kind}
