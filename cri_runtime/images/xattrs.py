"""Extended attributes of layers: which may pass, in both directions."""

import errno
import os

KEPT_XATTRS = "SCHILY.xattr."
"""The prefix of extended attributes in tar headers, as all tools write it."""


def xattr_allowed(name: str) -> bool:
    """Attributes that cannot speak to overlayfs or to the host's security modules."""
    return name == "security.capability" or (name.startswith("user.") and not name.startswith("user.overlay."))


def kept_xattrs(fd: int) -> dict[str, str]:
    """The extended attributes of an open file that a layer keeps, as tar headers."""
    try:
        names = [name for name in os.listxattr(fd) if xattr_allowed(name)]
    except OSError as err:
        if err.errno != errno.ENOTSUP:
            raise
        return {}
    return {KEPT_XATTRS + name: os.getxattr(fd, name).decode("utf-8", "surrogateescape") for name in names}


def set_xattr(fd: int, name: str, value: bytes) -> None:
    """Set one, unless the file system has none of that kind."""
    try:
        os.setxattr(fd, name, value)
    except OSError as err:
        if err.errno != errno.ENOTSUP:
            raise
