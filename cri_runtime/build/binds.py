"""What RUN mounts, as binds of the shim: files, overlays and tmpfs below the pod's directories.

Whatever is mounted here is mounted below ``mounts`` of the pod's state directory, where a daemon that comes after a
killed one finds and removes it (:func:`unmount_below`).
"""

import os
from collections.abc import Sequence
from pathlib import Path

from cri_runtime.build.mounts import Bound
from cri_runtime.linux.constants import MNT_DETACH, MS_NODEV, MS_NOSUID
from cri_runtime.linux.mount import mount, umount2
from cri_runtime.shim.rootfs import mount_overlay

MOUNTS = "mounts"


def make_binds(mounts: Sequence[Bound], home: Path, state: Path) -> list[dict[str, str]]:
    """Rows of the shim's ``mounts``; makes what they bind. Blocks. Raises OSError.

    Programs lie below ``home``: the file system of ``state`` may refuse to execute, but is often in memory, which is
    right for secrets.
    """
    rows = []
    for number, bound in enumerate(mounts):
        source = _source(bound, home / f"mount-{number}", state / MOUNTS / str(number))
        readonly = "ro" if bound.readonly else ""
        rows.append({"source": str(source), "target": bound.target, "readonly": readonly, "propagation": "private"})
    return rows


def _source(bound: Bound, file: Path, place: Path) -> Path:
    if bound.host is not None:
        return bound.host
    if bound.content is not None:
        return _file(bound, file if bound.mode & 0o111 else _made(place) / "file")
    _made(place)
    for name in ("merged", "upper", "work"):
        (place / name).mkdir(mode=0o755)
    merged = str(place / "merged")
    if bound.tmpfs_bytes is None:
        mount_overlay([str(path) for path in bound.layers], str(place / "upper"), str(place / "work"), merged)
    else:
        size = f",size={bound.tmpfs_bytes}" if bound.tmpfs_bytes else ""
        mount("tmpfs", merged, "tmpfs", MS_NOSUID | MS_NODEV, f"mode=1777{size}")
    return place / "merged" / bound.inside


def _made(place: Path) -> Path:
    """A directory that nobody else may enter."""
    place.mkdir(parents=True, mode=0o700)
    return place


def _file(bound: Bound, path: Path) -> Path:
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:  # noqa: PTH123 (a descriptor)
        file.write(bound.content or b"")
        os.fchown(fd, *bound.owner)
        os.fchmod(fd, bound.mode)
    return path


def unmount_below(state: Path) -> None:
    """Unmount all that :func:`make_binds` mounted for a pod. Idempotent."""
    for place in (state / MOUNTS).glob("*/merged"):
        try:
            umount2(str(place), MNT_DETACH)
        except OSError:
            pass  # EINVAL: not mounted
