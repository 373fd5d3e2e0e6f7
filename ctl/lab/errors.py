"""What can go wrong with a lab, each with a sentence that says what to do.

LabError
  NotRoot            namespaces, mounts and cgroups need root
  NotWritable        the state directory cannot be written
  AddressTaken       somebody else listens where a component would
  ComponentFailed    a component did not become healthy; its log's last lines are in the text
  Leftovers          something of the cluster is still in the kernel after everything was stopped
"""

from collections.abc import Sequence
from pathlib import Path

from ctl.errors import CtlError


class LabError(CtlError):
    """Base of this room's errors."""


class NotRoot(LabError):
    """``what`` was asked for by a user who may not."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} needs root (namespaces, mounts, cgroups, network devices): run it with sudo")


class NotWritable(LabError):
    """The state directory, or what lies on its path, cannot be written."""

    def __init__(self, path: Path, cause: OSError) -> None:
        super().__init__(
            f"the state directory {path} is not writable ({cause.strerror}): choose another with --state-dir"
        )


class AddressTaken(LabError):
    """``component`` cannot listen on ``address``; ``holder`` names who does, when that can be seen."""

    def __init__(self, component: str, address: str, holder: str = "") -> None:
        by = f" by {holder}" if holder else ""
        super().__init__(
            f"{component} cannot listen on {address}: the port is taken{by}; "
            f"stop that, or shift every port with 'ctl up --port-offset 1000'"
        )


class ComponentFailed(LabError):
    """``component`` ended, or was not healthy in time."""

    def __init__(self, component: str, what: str, log: Path, tail: Sequence[str]) -> None:
        lines = "".join(f"\n  | {line}" for line in tail)
        super().__init__(f"{component} {what}; the whole log is {log}, its last lines:{lines or ' (it is empty)'}")


class Leftovers(LabError):
    """What is still there after ``ctl down``."""

    def __init__(self, things: Sequence[str]) -> None:
        super().__init__("these are left behind:" + "".join(f"\n  {thing}" for thing in things))
