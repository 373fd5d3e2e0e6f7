"""``--services FILE``: Service and EndpointSlice manifests instead of a control plane."""

import asyncio
import fcntl
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from control.api import meta
from control.api.codec import DecodeError, from_yaml_documents
from protos.k8s.core_v1_pb2 import Endpoints, Service
from protos.k8s.discovery_v1_pb2 import EndpointSlice
from proxy.services import Listener, plan_listeners, service_of

log = logging.getLogger(__name__)

KINDS = (Service, EndpointSlice, Endpoints)


class ManifestError(ValueError):
    """The file cannot be used; the message names it, the document and the field."""


def read_listeners(path: Path, node: str) -> dict[str, list[Listener]]:
    """The listeners of every service in the file, by ``namespace/name``. Raises ManifestError."""
    try:
        objects = from_yaml_documents(path.read_text())
    except OSError as err:
        raise ManifestError(f"cannot read {path}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise ManifestError(f"{path}: not UTF-8 text") from err
    except DecodeError as err:
        raise ManifestError(f"{path}: {err}") from err
    for each in objects:
        if not isinstance(each, KINDS):
            raise ManifestError(f"{path}: {meta.describe(each)}: only Service, EndpointSlice and Endpoints belong here")
        each.metadata.namespace = each.metadata.namespace or "default"
    return _plan(objects, node)


def _plan(objects: list[Any], node: str) -> dict[str, list[Listener]]:
    slices: dict[str, list[EndpointSlice]] = {}
    for each in objects:
        if isinstance(each, EndpointSlice):
            slices.setdefault(service_of(each), []).append(each)
    endpoints = {meta.key(each): each for each in objects if isinstance(each, Endpoints)}
    services = {meta.key(each): each for each in objects if isinstance(each, Service)}
    return {
        key: plan_listeners(service, slices.get(key, []), endpoints.get(key), node) for key, service in services.items()
    }


@asynccontextmanager
async def changes(path: Path) -> AsyncIterator[asyncio.Event]:
    """An event that is set whenever the file may have changed, and on SIGHUP; whoever waits clears it.

    The kernel reports changes of the file's directory (F_NOTIFY, fcntl(2)) by SIGIO, whichever way an editor replaces
    the file. Where it cannot (network file systems), SIGHUP is left.
    """
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGHUP, signal.SIGIO):
        loop.add_signal_handler(number, changed.set)
    directory = os.open(path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        events = fcntl.DN_MODIFY | fcntl.DN_CREATE | fcntl.DN_RENAME | fcntl.DN_DELETE | fcntl.DN_MULTISHOT
        try:
            fcntl.fcntl(directory, fcntl.F_NOTIFY, events)
        except OSError as err:
            log.warning("file is read again on SIGHUP only", extra={"file": str(path), "cause": err.strerror})
        yield changed
    finally:
        os.close(directory)  # first: nobody handles SIGIO after the next line
        for number in (signal.SIGHUP, signal.SIGIO):
            loop.remove_signal_handler(number)
