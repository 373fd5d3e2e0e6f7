"""``diff``: what a container changed in its image, read from its writable layer.

Source: the kernel's overlayfs documentation: a character device 0:0 hides what lies below, and a directory with
``trusted.overlay.opaque`` all that is in the one below.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from ctl.container.group import DaemonError, container_command
from ctl.container.node import Node

OPAQUE = "trusted.overlay.opaque"
MADE_BY_US = ("/dev", "/proc", "/sys")
"""The runtime makes these mount points when the image has none; docker has them in a layer of its own."""


@container_command("diff")
@click.argument("name", metavar="CONTAINER")
async def diff(node: Node, name: str) -> None:
    """List what was added (A), changed (C) and deleted (D) in a container's file system."""
    container = await node.find(name)
    _, info = await node.status(container) if container.cri_id else (None, {})
    made = info.get("spec", {})
    if not made.get("upper"):
        raise DaemonError("this runtime does not say where a container's layers are")
    found = list(changes(Path(made["upper"]), [Path(layer) for layer in made["lower"]]))
    for kind, path in visible(found, mount_points(made)):
        click.echo(f"{kind} {path}")


def visible(found: list[tuple[str, str]], hidden: set[str]) -> list[tuple[str, str]]:
    """Pure: without mount points, and without directories that changed only because a mount point was made in them."""
    parents = {path.rpartition("/")[0] for _, path in found if path in hidden}
    shown = [(kind, path) for kind, path in found if path not in hidden]
    busy = {path.rpartition("/")[0] for _, path in shown}
    return [(kind, path) for kind, path in shown if kind != "C" or path not in parents or path in busy]


def mount_points(made: dict[str, Any]) -> set[str]:
    """Pure: the paths that are mounted over: what is seen there is not the layer's."""
    return {*MADE_BY_US, "/dev/console", *(mount["target"].rstrip("/") for mount in made.get("mounts", []))}


def changes(upper: Path, lowers: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """(A, C or D; path) of each change, parents first, in order."""
    yield from _changes(upper, lowers, "")


def _changes(upper: Path, lowers: Sequence[Path], path: str) -> Iterator[tuple[str, str]]:
    for entry in sorted(os.scandir(upper / path.lstrip("/")), key=lambda entry: entry.name):
        inner = f"{path}/{entry.name}"
        info = entry.stat(follow_symlinks=False)
        below = _lookup(lowers, inner)
        if is_whiteout(info):
            if below:
                yield "D", inner
            continue
        yield ("C" if below else "A"), inner
        if entry.is_dir(follow_symlinks=False):
            if below and _is_opaque(entry.path):
                yield from _hidden_by(upper, lowers, inner)
                lower: Sequence[Path] = ()
            else:
                lower = lowers
            yield from _changes(upper, lower, inner)


def is_whiteout(info: os.stat_result) -> bool:
    """Whether it says that something below is gone."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def _is_opaque(path: str) -> bool:
    try:
        return os.getxattr(path, OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def _hidden_by(upper: Path, lowers: Sequence[Path], path: str) -> Iterator[tuple[str, str]]:
    """What an opaque directory hides: deleted, unless it is there again."""
    names: set[str] = set()
    for layer in lowers:
        place = layer / path.lstrip("/")
        if place.is_dir() and not place.is_symlink():
            names |= set(os.listdir(place))  # noqa: PTH208
    for name in sorted(names):
        inner = f"{path}/{name}"
        if _lookup(lowers, inner) and not os.path.lexists(upper / inner.lstrip("/")):
            yield "D", inner


def _lookup(lowers: Sequence[Path], path: str) -> bool:
    """Whether the image has ``path``: the topmost layer that knows of it decides. No link is followed."""
    parts = path.strip("/").split("/")
    for layer in lowers:
        place = layer
        for at, part in enumerate(parts):
            place = place / part
            try:
                info = place.lstat()
            except OSError:
                break
            if is_whiteout(info):
                return False
            if at == len(parts) - 1:
                return True
            if not stat.S_ISDIR(info.st_mode):
                return False
        else:
            continue
        if place.parent != layer and _is_opaque(str(place.parent)):
            return False
    return False
