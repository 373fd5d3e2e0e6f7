"""URL paths to what they name. Pure.

``/api/v1/...`` is the core group, ``/apis/GROUP/VERSION/...`` the others; then ``[namespaces/NS/]PLURAL[/NAME[/SUB]]``.
"""

from dataclasses import dataclass

from control.api.kinds import KINDS, Kind, by_name

_BY_PATH = {(kind.group, kind.version, kind.plural): kind for kind in KINDS}
NAMESPACES = by_name("namespaces")


@dataclass(frozen=True)
class Target:
    """A collection (no name), an object, or a subresource of one."""

    kind: Kind
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def parse(path: str) -> Target | None:
    """What a path names, or None when it names nothing that is served."""
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["api"] and len(parts) > 2:
        return _below("", parts[1], parts[2:])
    if parts[:1] == ["apis"] and len(parts) > 3:
        return _below(parts[1], parts[2], parts[3:])
    return None


def _below(group: str, version: str, rest: list[str]) -> Target | None:
    if rest[0] == "namespaces" and len(rest) > 2 and not _is_of_namespace(group, rest):
        return _resource(group, version, rest[2:], rest[1])
    return _resource(group, version, rest, "")


def _is_of_namespace(group: str, rest: list[str]) -> bool:
    """``namespaces/NAME/status`` is a subresource of the Namespace, not a kind in it."""
    return group == "" and len(rest) == 3 and rest[2] in NAMESPACES.subresources


def _resource(group: str, version: str, rest: list[str], namespace: str) -> Target | None:
    kind = _BY_PATH.get((group, version, rest[0]))
    if kind is None or len(rest) > 3 or (namespace and not kind.namespaced):
        return None
    name, subresource = [*rest[1:], "", ""][:2]
    if name and kind.namespaced and not namespace:
        return None
    return Target(kind, namespace, name, subresource)


def path_of(kind: Kind, namespace: str = "{namespace}", name: str = "") -> str:
    """The path of a kind's collection, or of an object in it."""
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    scope = f"/namespaces/{namespace}" if kind.namespaced else ""
    return f"{root}{scope}/{kind.plural}" + (f"/{name}" if name else "")
