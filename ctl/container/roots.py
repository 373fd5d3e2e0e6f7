"""A container's root file system as a descriptor, beneath which every name of the container's resolves."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ctl.container.group import DaemonError
from ctl.container.node import Container, Node


@contextlib.asynccontextmanager
async def root_of(node: Node, container: Container) -> Any:
    """The root's descriptor: of a running container what its processes see, else its layers, without its mounts."""
    if not container.cri_id:
        raise DaemonError(f"container {container.spec.name} has no file system: it was never made")
    _, info = await node.status(container)
    if pid := int(info.get("pid") or 0):
        fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if (await node.status(container))[1].get("pid") == pid:  # it lives, so the number was not another's
                yield fd
                return
        finally:
            os.close(fd)
    made = info.get("spec", {})
    if not made.get("upper"):
        raise DaemonError("this runtime does not say where a container's layers are")
    with mounted(made) as fd:
        yield fd


@contextlib.contextmanager
def mounted(made: dict[str, Any]) -> Iterator[int]:
    """The layers of the runtime's spec as one writable tree, mounted nowhere: it goes with its descriptor."""
    from cri_runtime.linux.constants import MNT_DETACH
    from cri_runtime.linux.mount import umount2
    from cri_runtime.shim.rootfs import mount_overlay

    place = Path(tempfile.mkdtemp(prefix="view-", dir=Path(made["upper"]).parent))  # its work directory: same disk
    try:
        (place / "work").mkdir()
        (place / "root").mkdir()
        mount_overlay(made["lower"], made["upper"], str(place / "work"), str(place / "root"))
        fd = os.open(place / "root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        umount2(str(place / "root"), MNT_DETACH)
        try:
            yield fd
        finally:
            os.close(fd)
    finally:
        shutil.rmtree(place, ignore_errors=True)
