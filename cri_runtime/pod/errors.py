"""What can go wrong with pods. No gRPC here; ``service/errors.py`` maps the tree to status codes.

::

    PodError
    ├── NotFound            no such sandbox or container
    ├── AmbiguousId         a prefix that several ids share
    ├── InvalidConfig       the request breaks CRI's rules; ``field`` says where
    ├── NameTaken           another sandbox or container has this name and attempt
    ├── WrongState          it exists, but not in the state that this needs
    ├── ExecTimeout         an ExecSync ran out of time and was killed
    ├── StartFailed         the program could not be started; the container is EXITED
    ├── ResourcesRefused    the kernel refused limits
    └── ShimFailed          a supervisor refused or is gone
"""


class PodError(Exception):
    """Root of the tree."""


class NotFound(PodError):
    """There is no ``kind`` with this id."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f'{kind} "{name}" does not exist')
        self.kind, self.name = kind, name


class AmbiguousId(PodError):
    """A prefix that several ids share: give more digits."""


class InvalidConfig(PodError):
    """The request breaks a rule of CRI; ``field`` is its path in the request."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"{field}: {text}")
        self.field = field


class NameTaken(PodError):
    """Another sandbox or container has this name and attempt; remove it or raise the attempt."""


class WrongState(PodError):
    """The object is not in the state that the call needs."""


class ExecTimeout(PodError):
    """The command ran longer than its timeout and was killed."""


class StartFailed(PodError):
    """The container's program could not be started."""


class ResourcesRefused(PodError):
    """The kernel refused resource limits; nothing was changed."""


class ShimFailed(PodError):
    """A supervisor or the zygote refused a request: which step failed, with what errno, on which path."""

    def __init__(self, step: str, errno: int, path: str, text: str) -> None:
        super().__init__(f"{step}: {text}" + (f": {path}" if path else ""))
        self.step, self.errno, self.path, self.text = step, errno, path, text


class SupervisorGone(ShimFailed):
    """The supervisor ended before it answered; its pod is dead."""

    def __init__(self) -> None:
        super().__init__("supervisor", 0, "", "the pod's supervisor is gone")
