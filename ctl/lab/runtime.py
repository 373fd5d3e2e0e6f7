"""The node runtime alone, for commands that need no cluster (``ctl image build`` before ``ctl up``)."""

import asyncio
import os
import sys

from ctl.lab import components
from ctl.lab.components import Component
from ctl.lab.converge import converge, prepare
from ctl.lab.errors import LabError, NotRoot
from ctl.lab.health import is_healthy
from ctl.lab.layout import Layout
from ctl.lab.lock import exclusive
from ctl.lab.settings import settle


def ensure_runtime(layout: Layout) -> str:
    """The CRI endpoint of ``layout``, served; starts the runtime when it is not, and says so on stderr.

    Raises LabError when it cannot be started.
    """
    runtime = components.runtime(layout, settle(layout))
    if layout.runtime_socket.exists() and asyncio.run(is_healthy(runtime, layout)):
        return layout.runtime_endpoint
    if os.geteuid() != 0:
        raise NotRoot("starting the node runtime")
    with exclusive(layout):
        settings = settle(layout)
        prepare(layout, settings)
        _start(layout, components.runtime(layout, settings))
    print(f"started the node runtime of {layout.state_dir} ('ctl down' stops it)", file=sys.stderr)
    return layout.runtime_endpoint


def _start(layout: Layout, runtime: Component) -> None:
    try:
        asyncio.run(converge(layout, [runtime], lambda line: None))
    except ExceptionGroup as group:
        raise LabError("; ".join(str(err) for err in group.exceptions)) from group
