"""``ctl image``: docker's image verbs on the node runtime. Importing this registers every command."""

from ctl.image import build, listing, names, transfer  # noqa: F401 (they add themselves to the group)
from ctl.image.group import image

__all__ = ["image"]
