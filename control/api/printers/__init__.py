"""How each kind looks in a table, in ``ctl get`` and over REST: kubectl's columns, a printer per kind. Pure.

Reading order: model (what a printer is), parts (cells that kinds share), then one file per API group.
"""

from typing import Any

from control.api.kinds import Kind
from control.api.printers import apps, batch, core, network, policy, storage
from control.api.printers.model import Printer
from control.api.printers.parts import age

_PRINTERS: dict[str, Printer] = {
    **core.PRINTERS,
    **apps.PRINTERS,
    **batch.PRINTERS,
    **network.PRINTERS,
    **policy.PRINTERS,
    **storage.PRINTERS,
}


def _generic(obj: Any, now_s: float) -> list[str]:
    return [obj.metadata.name, age(obj.metadata.creationTimestamp, now_s)]


GENERIC = Printer("NAME|AGE", _generic)


def printer_of(kind: Kind) -> Printer:
    """The printer of ``kind``; name and age for one that has none of its own."""
    return _PRINTERS.get(kind.resource, GENERIC)
