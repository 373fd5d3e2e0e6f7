"""``python -m cri_runtime --teardown``: take away what the daemon keeps in the kernel for pods to come.

For when the node is given up: the pods are removed already (by CRI) and the daemon is stopped. Bridge, packet filter
table and forwarding settings go, and so do mounts that a crash has left in the runtime's directories. Images and
records stay on disk.
"""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from cri_runtime.daemon import Config, make_network, prepare, sole_owner
from cri_runtime.linux.constants import MNT_DETACH
from cri_runtime.linux.mount import umount2

log = logging.getLogger(__name__)


async def teardown(config: Config) -> None:
    """Remove what is there; nothing there is fine. Raises OSError when a daemon still works on ``config.root``."""
    prepare(config)
    with sole_owner(config.root):
        for point in mounts_below(config.state, config.root):
            umount2(str(point), MNT_DETACH)
        network = make_network(config)
        try:
            await network.setup()  # adopts what is there, and knows then what to remove
            await network.teardown()
        finally:
            await network.aclose()
    log.info("torn down", extra={"bridge": config.bridge, "state": str(config.state)})


def mounts_below(*roots: Path) -> list[Path]:
    """Mount points inside the directories, deepest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = (Path(_plain(line.split()[4])) for line in lines)
    inside = [point for point in points if any(point != root and point.is_relative_to(root) for root in _real(roots))]
    return sorted(inside, key=lambda point: len(point.parts), reverse=True)


def _real(roots: tuple[Path, ...]) -> Iterator[Path]:
    return (root.resolve() for root in roots)


def _plain(text: str) -> str:
    """mountinfo writes blanks and the like as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
