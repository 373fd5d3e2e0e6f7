"""``ctl container``: docker's container verbs on the node runtime. Importing this registers every command."""

from ctl.container import changes, copy, create, execute, inspect, lifecycle, listing, logs, run, usage
from ctl.container.group import container

__all__ = [
    "changes",
    "container",
    "copy",
    "create",
    "execute",
    "inspect",
    "lifecycle",
    "listing",
    "logs",
    "run",
    "usage",
]
