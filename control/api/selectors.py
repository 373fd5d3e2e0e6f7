"""Label and field selectors: text or message in, a predicate out.

Label text: ``a=b``, ``a==b``, ``a!=b``, ``a in (x,y)``, ``a notin (x)``, ``a``, ``!a``; comma means and. Field text:
``=``, ``==`` and ``!=``. Source: apimachinery, labels/selector.go and fields/selector.go.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from protos.k8s.core_v1_pb2 import NodeSelector, NodeSelectorRequirement
from protos.k8s.meta_v1_pb2 import LabelSelector

REQUIREMENT = re.compile(
    r"\s*(?:"
    r"!\s*(?P<absent>[^\s!=,()]+)"
    r"|(?P<set_key>[^\s!=,()]+)\s+(?P<set_op>in|notin)\s*\((?P<values>[^()]*)\)"
    r"|(?P<key>[^\s!=,()]+)\s*(?P<op>==|!=|=|>|<)\s*(?P<value>[^\s!=,()]*)"
    r"|(?P<present>[^\s!=,()]+)"
    r")\s*(?:,|$)"
)
FIELD_TERM = re.compile(r"\s*([^\s=!,]+)\s*(==|!=|=)\s*([^\s,]*)\s*")


class SelectorError(ValueError):
    """The selector text cannot be read; the message shows where."""


@dataclass(frozen=True)
class Requirement:
    """One condition. ``op``: In, NotIn, Exists, DoesNotExist, Gt, Lt. NotIn holds for an absent key."""

    key: str
    op: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether ``labels`` meet the condition."""
        return _OPERATORS[self.op](labels.get(self.key), self.values)


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else None


def _compare(value: str | None, values: frozenset[str], sign: int) -> bool:
    left, right = _number(value or ""), _number(next(iter(values), ""))
    return left is not None and right is not None and (left - right) * sign > 0


_OPERATORS: dict[str, Callable[[str | None, frozenset[str]], bool]] = {
    "In": lambda value, values: value is not None and value in values,
    "NotIn": lambda value, values: value is None or value not in values,
    "Exists": lambda value, values: value is not None,
    "DoesNotExist": lambda value, values: value is None,
    "Gt": lambda value, values: _compare(value, values, 1),
    "Lt": lambda value, values: _compare(value, values, -1),
}


@dataclass(frozen=True)
class Selector:
    """All requirements hold. No requirement: everything matches."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether ``labels`` meet every requirement."""
        return not self.nothing and all(requirement.matches(labels) for requirement in self.requirements)

    @property
    def everything(self) -> bool:
        """True when no label can be refused."""
        return not self.requirements and not self.nothing

    def __str__(self) -> str:
        return ",".join(_text(requirement) for requirement in self.requirements)


NOTHING = Selector(nothing=True)
"""Matches no object: what an absent selector of a workload means."""


def _text(requirement: Requirement) -> str:
    key, values = requirement.key, sorted(requirement.values)
    joined = ",".join(values)
    if requirement.op in ("In", "NotIn") and len(values) == 1:
        return f"{key}{'=' if requirement.op == 'In' else '!='}{joined}"
    forms = {"In": f"{key} in ({joined})", "NotIn": f"{key} notin ({joined})", "Exists": key, "DoesNotExist": f"!{key}"}
    return forms.get(requirement.op) or f"{key}{'>' if requirement.op == 'Gt' else '<'}{joined}"


def parse_labels(text: str) -> Selector:
    """The selector that ``text`` writes; empty text matches everything. Raises SelectorError."""
    requirements, at = [], 0
    while at < len(text) and text[at:].strip():
        found = REQUIREMENT.match(text, at)
        if found is None:
            raise SelectorError(
                f"cannot read the label selector {text!r} at {text[at:].strip()!r}: "
                f"write key=value, key!=value, key in (a,b), key notin (a), key or !key, joined by commas"
            )
        requirements.append(_requirement(found))
        at = found.end()
    return Selector(tuple(requirements))


def _requirement(found: re.Match[str]) -> Requirement:
    if found["absent"]:
        return Requirement(found["absent"], "DoesNotExist")
    if found["set_key"]:
        values = frozenset(value.strip() for value in found["values"].split(","))
        return Requirement(found["set_key"], "In" if found["set_op"] == "in" else "NotIn", values)
    if found["key"]:
        op = {"!=": "NotIn", ">": "Gt", "<": "Lt"}.get(found["op"], "In")
        return Requirement(found["key"], op, frozenset([found["value"]]))
    return Requirement(found["present"], "Exists")


def from_labels(labels: Mapping[str, str]) -> Selector:
    """The selector of a plain map (Service, ReplicationController). An empty map selects nothing."""
    if not labels:
        return NOTHING
    return Selector(tuple(Requirement(key, "In", frozenset([value])) for key, value in sorted(labels.items())))


def from_message(selector: LabelSelector) -> Selector:
    """The selector of a LabelSelector message; an empty one matches everything. Raises SelectorError."""
    equal = [Requirement(key, "In", frozenset([value])) for key, value in sorted(selector.matchLabels.items())]
    others = [
        _checked(Requirement(item.key, item.operator, frozenset(item.values)), item.operator)
        for item in selector.matchExpressions
    ]
    return Selector((*equal, *others))


def _checked(requirement: Requirement, op: str) -> Requirement:
    if op not in _OPERATORS:
        raise SelectorError(f"unknown operator {op!r} for key {requirement.key!r}: use In, NotIn, Exists, DoesNotExist")
    return requirement


def node_selector_matches(selector: NodeSelector, labels: Mapping[str, str], fields: Mapping[str, str]) -> bool:
    """Whether a node's labels and fields (metadata.name) meet any term of a NodeSelector. A term without a
    condition meets nothing."""
    return any(
        (term.matchExpressions or term.matchFields)
        and _all_hold(term.matchExpressions, labels)
        and _all_hold(term.matchFields, fields)
        for term in selector.nodeSelectorTerms
    )


def _all_hold(items: Iterable[NodeSelectorRequirement], labels: Mapping[str, str]) -> bool:
    return all(
        _checked(Requirement(item.key, item.operator, frozenset(item.values)), item.operator).matches(labels)
        for item in items
    )


@dataclass(frozen=True)
class FieldSelector:
    """Terms (field, equal, value), all of which hold."""

    terms: tuple[tuple[str, bool, str], ...] = ()

    def matches(self, fields: Mapping[str, str]) -> bool:
        """Whether ``fields`` meet every term; an absent field is empty text."""
        return all((fields.get(name, "") == value) is equal for name, equal, value in self.terms)

    def required(self, name: str) -> str | None:
        """The value that ``name`` must have, when a term says so."""
        return next((value for field, equal, value in self.terms if equal and field == name), None)


def parse_fields(text: str) -> FieldSelector:
    """The field selector that ``text`` writes; empty text matches everything. Raises SelectorError."""
    terms = []
    for part in (part for part in text.split(",") if part.strip()):
        found = FIELD_TERM.fullmatch(part)
        if found is None:
            raise SelectorError(
                f"cannot read the field selector {text!r} at {part.strip()!r}: write field=value or field!=value"
            )
        terms.append((found[1], found[2] != "!=", found[3]))
    return FieldSelector(tuple(terms))
