"""Printers of ``storage.k8s.io``."""

from typing import Any

from control.api.printers.model import Printer
from control.api.printers.parts import age

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


def _storage_class(class_: Any, now_s: float) -> list[str]:
    default = class_.metadata.annotations.get(DEFAULT_CLASS) == "true"
    return [
        class_.metadata.name + (" (default)" if default else ""),
        class_.provisioner,
        class_.reclaimPolicy or "Delete",
        class_.volumeBindingMode or "Immediate",
        "true" if class_.allowVolumeExpansion else "false",
        age(class_.metadata.creationTimestamp, now_s),
    ]


PRINTERS = {
    "storageclasses.storage.k8s.io": Printer(
        "NAME|PROVISIONER|RECLAIMPOLICY|VOLUMEBINDINGMODE|ALLOWVOLUMEEXPANSION|AGE", _storage_class
    ),
}
