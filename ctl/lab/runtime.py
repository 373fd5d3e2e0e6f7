"""The node runtime alone, for commands that need no cluster (``ctl image build`` before ``ctl up``)."""

import asyncio
import os
import sys

from ctl.lab import components
from ctl.lab.converge import converge, prepare
from ctl.lab.errors import LabError, NotRoot
from ctl.lab.health import is_healthy
from ctl.lab.layout import Layout
from ctl.lab.settings import settle


def ensure_runtime(layout: Layout) -> str:
    """The CRI endpoint of ``layout``, served; starts the runtime when it is not, and says so on stderr.

    Raises LabError when it cannot be started.
    """
    settings = settle(layout)
    runtime = components.runtime(layout, settings)
    if layout.runtime_socket.exists() and asyncio.run(is_healthy(runtime, layout)):
        return layout.runtime_endpoint
    if os.geteuid() != 0:
        raise NotRoot("starting the node runtime")
    prepare(layout, settings)
    try:
        asyncio.run(converge(layout, [runtime], lambda line: None))
    except ExceptionGroup as group:
        raise LabError("; ".join(str(err) for err in group.exceptions)) from group
    print(f"started the node runtime of {layout.state_dir} ('ctl down' stops it)", file=sys.stderr)
    return layout.runtime_endpoint
