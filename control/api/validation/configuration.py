"""ConfigMaps, Secrets, ServiceAccounts."""

import json
from typing import Any

from control.api.validation import names
from control.api.validation.faults import Faults
from protos.k8s import core_v1_pb2 as core

SIZE_MAX = 1 << 20

# Secret types that must have certain keys.
REQUIRED_KEYS = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}
JSON_KEYS = (".dockerconfigjson", ".dockercfg")


def validate_config_map(config: core.ConfigMap, faults: Faults) -> None:
    """Keys are file names, in one of the two maps; 1 MiB in all."""
    for key in config.data:
        faults.each_invalid(f"data[{key}]", key, names.config_key(key))
        if key in config.binaryData:
            faults.invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
    for key in config.binaryData:
        faults.each_invalid(f"binaryData[{key}]", key, names.config_key(key))
    size = sum(len(value.encode()) for value in config.data.values()) + sum(map(len, config.binaryData.values()))
    _validate_size(size, faults)


def validate_secret(secret: core.Secret, faults: Faults) -> None:
    """Keys are file names, the type's keys are there; 1 MiB in all."""
    for key in secret.data:
        faults.each_invalid(f"data[{key}]", key, names.config_key(key))
    _validate_size(sum(map(len, secret.data.values())), faults)
    for key in REQUIRED_KEYS.get(secret.type, ()):
        if key not in secret.data:
            faults.required(f"data[{key}]", f"a secret of type {secret.type} needs it")
        elif key in JSON_KEYS and not _is_json(secret.data[key]):
            faults.invalid(f"data[{key}]", "<secret contents redacted>", "must be JSON")
    if secret.type == "kubernetes.io/service-account-token":
        name = "kubernetes.io/service-account.name"
        if not secret.metadata.annotations.get(name):
            faults.required(f"metadata.annotations[{name}]")


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


def _validate_size(size: int, faults: Faults) -> None:
    if size > SIZE_MAX:
        faults.too_long("data", f"may not be more than {SIZE_MAX} bytes in all, got {size}")


def validate_service_account(account: core.ServiceAccount, faults: Faults) -> None:
    """Nothing beyond its metadata."""


def validate_immutable_update(new: Any, old: Any, faults: Faults) -> None:
    """``immutable: true`` is for good, and fixes the data."""
    if not old.immutable:
        return
    if not new.immutable:
        faults.forbidden("immutable", "field is immutable when `immutable` is set")
    for name in ("data", "binaryData"):
        if name in old.DESCRIPTOR.fields_by_name and getattr(new, name) != getattr(old, name):
            faults.forbidden(name, "field is immutable when `immutable` is set")


def validate_secret_update(new: core.Secret, old: core.Secret, faults: Faults) -> None:
    """The type never changes."""
    faults.immutable("type", new.type, old.type)
    validate_immutable_update(new, old, faults)
