"""Objects as meta.k8s.io/v1 Tables: what ``kubectl get`` prints, one row per object. Pure."""

from collections.abc import Sequence
from typing import Any

from control.api.codec import to_json
from control.api.encode import encode
from control.api.kinds import Kind
from control.api.printers import printer_of

META = {"apiVersion": "meta.k8s.io/v1"}


def table(
    kind: Kind,
    objects: Sequence[Any],
    now_s: float,
    include: str,
    metadata: dict[str, Any] | None = None,
    columns: bool = True,
) -> dict[str, Any]:
    """The Table of ``objects``. ``include``: Metadata (default), Object or None, what each row carries.

    ``columns`` False leaves the definitions out: later events of a watch.
    """
    return {
        "kind": "Table",
        **META,
        "metadata": metadata or {},
        "columnDefinitions": _columns(kind) if columns else None,
        "rows": [_row(kind, obj, now_s, include) for obj in objects],
    }


def _columns(kind: Kind) -> list[dict[str, Any]]:
    printer = printer_of(kind)
    return [
        {
            "name": name.title(),
            "type": "string",
            "format": "name" if index == 0 else "",
            "description": "",
            "priority": 0 if index in printer.narrow else 1,
        }
        for index, name in enumerate(printer.names)
    ]


def _row(kind: Kind, obj: Any, now_s: float, include: str) -> dict[str, Any]:
    row: dict[str, Any] = {"cells": list(printer_of(kind).cells(obj, now_s))}
    if kind.kind == "Pod" and obj.status.phase in ("Succeeded", "Failed"):
        row["conditions"] = [{"type": "Completed", "status": "True", "reason": obj.status.phase}]
    if include == "Object":
        row["object"] = to_json(obj)
    elif include != "None":
        row["object"] = partial(obj)
    return row


def partial(obj: Any) -> dict[str, Any]:
    """An object's metadata alone, as PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", **META, "metadata": encode(obj.metadata)}
