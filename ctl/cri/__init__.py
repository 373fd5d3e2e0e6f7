"""``ctl cri``: crictl's commands. Importing this is what ``ctl cri`` costs: no gRPC, no generated code, no aiohttp."""

from ctl.cri import about, containers, images, logs, pods, stats, streams
from ctl.cri.group import cri

__all__ = ["about", "containers", "cri", "images", "logs", "pods", "stats", "streams"]
