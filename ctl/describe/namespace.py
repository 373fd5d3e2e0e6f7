"""A namespace, with what limits the objects in it."""

from collections.abc import Sequence
from typing import Any

from ctl.describe.parts import Lines, head, table


def describe_namespace(namespace: Any, quotas: Sequence[Any], limits: Sequence[Any]) -> Lines:
    """Status, quotas and limit ranges."""
    return [*head(namespace), f"Status:\t{namespace.status.phase}", "", *_quotas(quotas), "", *_limits(limits)]


def _quotas(quotas: Sequence[Any]) -> Lines:
    if not quotas:
        return ["No resource quota."]
    lines = ["Resource Quotas"]
    for quota in quotas:
        rows = [("Resource", "Used", "Hard")]
        rows += [
            (name, quota.status.used[name].string if name in quota.status.used else "0", quota.status.hard[name].string)
            for name in sorted(quota.status.hard)
        ]
        lines += [f"  Name:\t{quota.metadata.name}", *table(rows)]
    return lines


LIMITS = ("min", "max", "defaultRequest", "default", "maxLimitRequestRatio")


def _limits(limits: Sequence[Any]) -> Lines:
    if not limits:
        return ["No LimitRange resource."]
    rows = [("Type", "Resource", "Min", "Max", "Default Request", "Default Limit", "Max Limit/Request Ratio")]
    for item in (item for limit in limits for item in limit.spec.limits):
        for name in sorted({name for field in LIMITS for name in getattr(item, field)}):
            values = (getattr(item, field) for field in LIMITS)
            rows.append((item.type, name, *(value[name].string if name in value else "-" for value in values)))
    return ["Resource Limits", *(line[1:] for line in table(rows))]
