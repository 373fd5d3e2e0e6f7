"""One command at a time changes a cluster: two ``ctl up`` at once are one, then "already up"."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ctl.lab.errors import NotWritable
from ctl.lab.layout import Layout


@contextmanager
def exclusive(layout: Layout) -> Iterator[None]:
    """Hold the state directory's lock for the length of the block; waits for whoever has it. Raises NotWritable."""
    made = not layout.state_dir.exists()
    try:
        layout.state_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        lock = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as err:
        raise NotWritable(layout.state_dir, err) from err
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
        if made and layout.state_dir.is_dir() and list(layout.state_dir.iterdir()) == [layout.lock]:
            layout.lock.unlink()
            layout.state_dir.rmdir()
